"""Studies: each file a question; `runs(config)` lists its runs, `tables(records)` its answer."""

from tfdistill.studies import alpha_temperature, mysteries, single

STUDIES = {
    "alpha_temperature": alpha_temperature,
    "mysteries": mysteries,
    "single": single,
}
# Published test accuracies by row, in 0..1, which the figures of a study show beside its own.
PUBLISHED = {"alpha_temperature": alpha_temperature.PUBLISHED}
