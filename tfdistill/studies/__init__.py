"""Studies: each file a question; `runs(config)` lists its runs, `tables(records)` its answer.

`config/registry.py` names them. Besides the two functions a study has TITLE, QUESTION, SOURCE,
COMMANDS (command: cost in words) and PUBLISHED (row: published test accuracy in 0..1), and where it
needs them `Settings`, the dataclass of its own settings, and `figures(records)`, a list of (title,
SVG text, caption). The runs and cells that most studies have are in `common`.
"""
