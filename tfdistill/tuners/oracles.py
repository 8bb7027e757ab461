"""Oracles: who proposes the trials of a search, and knows after any interruption where it stood.

Keras Tuner's oracles write `oracle.json` and `trial_*/trial.json` one after the other, in place, so
a kill between or within the two loses trials; its grid oracle cannot be reloaded at all. Here every
file appears whole, each trial's file carries what the oracle knew when it was written, and after a
reload the state is made to agree with the trials' files.
"""

import contextlib
import os
import socket
import time
from concurrent import futures
from datetime import datetime
from itertools import product
from pathlib import Path

import keras_tuner as kt
import numpy as np
from keras_tuner.engine.hyperparameters import Float, Int
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src.distribute import utils as roles

from tfdistill.utils import checks, storage

REMEDY = "Put the file back, or start over: remove the search's folder, or give overwrite=True."
ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
# What follows from the trials' files, or is not worth keeping in each of them.
_DERIVED: tuple[str, ...] = (
    "start_order",
    "end_order",
    "run_times",
    "retry_queue",
    "tried_so_far",
    "id_to_hash",
)
_DERIVED += ("display",)
_TIMEOUT_VARIABLE, _TIMEOUT = "TFDISTILL_ORACLE_TIMEOUT", 60.0  # seconds


class Durable(kt.Oracle):
    """Lets an oracle of Keras Tuner, which stands behind it in the bases, survive a kill.

    Trials that were running are run again first, in their order; with a chief, each by the worker
    that had it, once that is started again. Failed trials do not end the search unless
    `max_consecutive_failed_trials` is given, and `seed=0` is a seed like any other.

    Raises:
        UsageError: In `reload`, a file of the search that is missing or cannot be read, or another
            seed than it was begun with.

    Example:
        >>> class MyOracle(Durable, kt.oracles.RandomSearchOracle): ...
    """

    def __init__(self, *args, seed=None, max_consecutive_failed_trials=None, **kwargs):
        super().__init__(
            *args, seed=seed, max_consecutive_failed_trials=max_consecutive_failed_trials, **kwargs
        )
        self._given_seed = seed
        if seed == 0:  # Keras Tuner draws one instead
            self.seed = self._seed_state = 0

    @property
    def begun(self) -> bool:
        """Whether the folder holds a search that has a trial."""
        file = Path(self._get_oracle_fname())
        return bool(self._trial_files()) or file.exists() and bool(read(file)["start_order"])

    def save(self) -> None:
        """Write `oracle.json`."""
        storage.write_checked(Path(self._get_oracle_fname()), self.get_state())

    def reload(self) -> None:
        """Take up the search in the project's folder."""
        file = Path(self._get_oracle_fname())
        # Before the trials, of which a chief may write more at this moment.
        state = read(file) if file.exists() else self.get_state()
        if self._given_seed not in (None, state["seed"]):
            raise checks.UsageError(
                f"{self._project_dir} holds another search: the tuner's seed is {state['seed']} "
                f"there and {self._given_seed} here. Give the same, another project_name, or "
                "overwrite=True to start over."
            )
        states = [read(file) for file in self._trial_files()]
        self.trials = {state["trial_id"]: Trial.from_state(state) for state in states}
        self._check_complete(state)
        if states and (not file.exists() or states[-1]["trial_id"] not in state["start_order"]):
            state |= states[-1]["oracle"]  # written with the newest trial, in one stroke
        owners = {s["owner"]: s["trial_id"] for s in states if s["status"] == TrialStatus.RUNNING}
        self.set_state({**state, "ongoing_trials": {}, **self._orders(state)})
        for trial in self.trials.values():
            self._count_in(trial)
        self._take_up(owners)

    def _orders(self, state: dict) -> dict:
        ended = [name for name, trial in self.trials.items() if trial.status in ENDED]
        known = [name for name in state["end_order"] if name in ended]
        times = {name: max(1, state["run_times"].get(name, 0)) for name in ended}
        return {
            "start_order": list(self.trials),
            "end_order": known + [name for name in ended if name not in known],
            "run_times": {**state["run_times"], **times},
            "tried_so_far": [],
            "id_to_hash": {},
        }

    def _count_in(self, trial) -> None:
        if trial.status in ENDED:
            self.update_space(trial.hyperparameters)
        self._record_values(trial)
        # The display fails at a trial that it did not see begin.
        display, now = self._display, datetime.now()
        display.search_start = display.search_start or now
        display.trial_start.setdefault(trial.trial_id, now)
        display.trial_number.setdefault(trial.trial_id, len(display.trial_number) + 1)

    def _take_up(self, owners: dict[str, str]) -> None:
        unfinished = [name for name, trial in self.trials.items() if trial.status not in ENDED]
        self.ongoing_trials = {}
        if roles.is_chief_oracle():
            self.ongoing_trials = {owner: self.trials[name] for owner, name in owners.items()}
            self.tuner_ids |= set(owners)
            unfinished = [name for name in unfinished if name not in owners.values()]
        self._retry_queue = unfinished[::-1]  # a stack

    def _check_complete(self, state: dict) -> None:
        for name in state["start_order"]:
            if name not in self.trials:
                raise checks.UsageError(
                    f"The search in {self._project_dir} has lost trial_{name}/trial.json. {REMEDY}"
                )

    def _trial_files(self) -> list[Path]:
        return sorted(Path(self._project_dir).glob("trial_*/trial.json"))

    def _save_trial(self, trial) -> None:
        state = self.get_state()
        owners = {name: owner for owner, name in state.pop("ongoing_trials").items()}
        oracle = {key: value for key, value in state.items() if key not in _DERIVED}
        record = {**trial.get_state(), "owner": owners.get(trial.trial_id), "oracle": oracle}
        storage.write_checked(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", record)


class GridOracle(Durable, kt.Oracle):
    """Proposes the first point of the grid that has no trial.

    The grid is the product of the values of all hyperparameters, the one registered last running
    fastest; of a conditional hyperparameter only where it is active.

    Raises:
        UsageError: A range without `step` in the space.
    """

    def populate_space(self, trial_id: str) -> dict:
        """Return the next point, or that there is none."""
        for values in self._grid():
            if not self._duplicate(values):
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.STOPPED, "values": None}

    def _grid(self):
        space = self.hyperparameters.space
        for point in product(*map(_values, space)):
            hps = kt.HyperParameters()
            for hp, value in zip(space, point, strict=True):
                hps.merge([hp])
                if hps.is_active(hp):
                    hps.values[hp.name] = value
            yield hps.values


class RandomOracle(Durable, kt.oracles.RandomSearchOracle):
    """Proposes random points."""


class BayesianOracle(Durable, kt.oracles.BayesianOptimizationOracle):
    """Proposes points by Bayesian optimisation, as a function of the seed and the trials so far.

    Keras Tuner keeps a random state and a fitted process in memory, which a reload would lose.
    """

    def populate_space(self, trial_id: str) -> dict:
        """Return the next point."""
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        self.gpr = self._make_gpr()
        return super().populate_space(trial_id)

    def _vectorize_trials(self):
        # Ongoing trials are given the score that is expected from those that are completed.
        every = self.trials
        self.trials = {n: t for n, t in every.items() if t.status == TrialStatus.COMPLETED}
        try:
            self.gpr.fit(*super()._vectorize_trials())
        finally:
            self.trials = every
        return super()._vectorize_trials()


class HyperbandOracle(Durable, kt.oracles.HyperbandOracle):
    """Proposes random points for few epochs, and the best of them again for more."""


def wait_for_oracle(timeout: float | None = None) -> None:
    """Return once the chief of a distributed search can be reached.

    Args:
        timeout: Seconds to wait; None means the environment's TFDISTILL_ORACLE_TIMEOUT, or 60.

    Raises:
        UsageError: It cannot be reached in that time.
    """
    if timeout is None:
        timeout = float(os.environ.get(_TIMEOUT_VARIABLE, _TIMEOUT))
    address = os.environ["KERASTUNER_ORACLE_IP"], os.environ["KERASTUNER_ORACLE_PORT"]
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection(address, timeout=max(timeout, 0.1)).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise checks.UsageError(
                    f"Cannot reach the oracle at {':'.join(address)} ({error}) within {timeout:g} "
                    "seconds. Start the process with KERASTUNER_TUNER_ID=chief, and check "
                    "KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT."
                ) from None
        time.sleep(0.2)


def serve(oracle: kt.Oracle) -> None:
    """Be the chief of a distributed search, until all workers know that it has ended.

    As Keras Tuner's `start_server`, which leaves up to 20 seconds later.

    Raises:
        UsageError: The address cannot be used.
    """
    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute import oracle_chief

    address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    servicer = oracle_chief.OracleServicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise checks.UsageError(
            f"The chief cannot listen at {address}: {checks.first_line(error)} Choose another "
            "KERASTUNER_ORACLE_PORT."
        ) from None
    server.start()
    while not (servicer.stop_triggered and oracle_chief.exit_chief(oracle)):
        time.sleep(0.2)
    server.stop(grace=5.0).wait()


def _values(hp) -> list:
    if not isinstance(hp, (Float, Int)):
        return list(hp.values)
    if hp.step is None:
        raise checks.UsageError(
            f"A grid needs a list of values or a step. Received: {hp.name!r} from {hp.min_value} "
            f"to {hp.max_value} without a step. Give one, or use another tuner."
        )
    if hp.sampling != "linear":
        return list(hp.values)
    # Keras Tuner leaves out 0.9 of 0.1, 0.3 ... 0.9: in floating point, 0.8 // 0.2 is 3.
    count = int((hp.max_value - hp.min_value) / hp.step + 1e-8) + 1
    return [min(hp.min_value + place * hp.step, hp.max_value) for place in range(count)]


def read(file: Path) -> dict:
    """Return what a JSON file of a search holds; raise `UsageError` if it cannot be read."""
    with _refused(file):
        return storage.read_checked(file)


def check_file(file: Path, expected: str) -> None:
    """Raise `UsageError` unless the SHA-256 of a file of a search is `expected`."""
    with _refused(file):
        storage.check_file(file, expected)


@contextlib.contextmanager
def _refused(file: Path):
    try:
        yield
    except storage.DamagedError as error:
        raise checks.UsageError(
            f"Cannot read the search's file {file}: {error.problem}. {REMEDY}"
        ) from None
