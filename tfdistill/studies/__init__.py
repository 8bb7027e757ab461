"""Studies: each file a question; `runs(config)` lists its runs, `tables(records)` its answer."""

from tfdistill.studies import mysteries, single

STUDIES = {"mysteries": mysteries, "single": single}
