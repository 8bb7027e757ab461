"""Imported last by the process that is forked: as `tensorflow.start` does after its imports."""

import gc

gc.freeze()
