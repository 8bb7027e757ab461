"""Types that stand in many signatures."""

from typing import Any, TypeAlias

# What Keras takes for a tensor: one of the backend, a symbolic one, an array, nested lists. Neither
# Keras nor TensorFlow carries types that hold, so docstrings give shape and dtype.
Tensor: TypeAlias = Any
# Of a tensor or a layer; None is a size that is not known.
Shape: TypeAlias = tuple[int | None, ...]
