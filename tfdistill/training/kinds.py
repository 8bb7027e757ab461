"""Kinds of runs that a module of their own does, beside training and evaluating networks.

Such a module has `run(config, study_folder, progress)`, which leaves a record and returns it,
`cost(config)`, in operations, `check(config)`, which raises before anything is written, and
`one_batch(config)`, the same run made as small as it can be.
"""

from types import ModuleType

from tfdistill.config import RunConfig
from tfdistill.config.registry import RUN_KINDS
from tfdistill.utils import checks

NETWORK = "network"


def module(config: RunConfig) -> ModuleType | None:
    """Return the module that does a run; None where it is one network.

    Raises:
        UsageError: An unknown kind.
    """
    if config.kind == NETWORK:
        return None
    return RUN_KINDS[checks.one_of("kind", config.kind, RUN_KINDS)]
