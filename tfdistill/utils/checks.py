"""Argument checks: the only place where errors for users are worded.

Every message is one line that says what came, what was expected and what to do. `UsageError` is a
`ValueError`, so library users catch what they expect; the command line turns it into exit status 2.
"""

import contextlib
import difflib
import importlib.util
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from tfdistill.utils.types import Shape

# The largest number of TensorFlow's and Keras's 32-bit counts and seeds.
LARGEST = 2**31 - 1


class UsageError(ValueError):
    """Input that the user can correct; its text is one line and complete."""

    unknown_key = False  # whether it is a key that this version of the package does not know


class Refused(RuntimeError):
    """A result that must not be used, though the input was right; its text is one line."""


def of_type(name: str, value: object, allowed: str) -> NoReturn:
    """Raise: a value is of another type than what is allowed, said in words."""
    raise UsageError(f"{name} must be {allowed}. Received: {name}={shown(value)}.")


def shown(value: object) -> str:
    """Return a value as it is quoted in messages: one line, at most 80 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return "a number of very many digits" if isinstance(value, int) else "a very deep value"
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(text)} characters)"


def fraction(name: str, value: float) -> float:
    """Return `value` if it lies in 0..1, else raise."""
    if not (_is_number(value) and 0.0 <= value <= 1.0):
        raise UsageError(f"{name} must be a number from 0 to 1. Received: {name}={shown(value)}.")
    return value


def proper_fraction(name: str, value: float) -> float:
    """Return `value` if it is above 0 and below 1, else raise."""
    if not (_is_number(value) and 0.0 < value < 1.0):
        raise UsageError(
            f"{name} must be a number above 0 and below 1. Received: {name}={shown(value)}."
        )
    return value


def positive(name: str, value: float) -> float:
    """Return `value` if it is finite and > 0, else raise."""
    if not (is_finite(value) and value > 0):
        raise UsageError(f"{name} must be a finite number > 0. Received: {name}={shown(value)}.")
    return value


def temperature(name: str, value: float) -> float:
    """Return `value` if it is a temperature at which losses are exact in float32, else raise."""
    if not (is_finite(value) and 1e-3 <= value <= 1e3):
        raise UsageError(
            f"{name} must be a number from 0.001 to 1000. Received: {name}={shown(value)}."
        )
    return value


def non_negative(name: str, value: float) -> float:
    """Return `value` if it is finite and >= 0, else raise."""
    if not (is_finite(value) and value >= 0):
        raise UsageError(f"{name} must be a finite number >= 0. Received: {name}={shown(value)}.")
    return value


def count(name: str, value: int, minimum: int = 1) -> int:
    """Return `value` if it is an integer from `minimum` to 2,147,483,647, else raise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UsageError(
            f"{name} must be a whole number, at least {minimum}. Received: {name}={shown(value)}."
        )
    if value > LARGEST:
        raise UsageError(
            f"{name} must be a whole number, at most {LARGEST}. Received: {name}={shown(value)}."
        )
    return value


def bits(name: str, value: int) -> int:
    """Return a number of bits to round to if it is from 2 to 8, else raise."""
    if count(name, value, minimum=2) > 8:
        raise UsageError(f"{name} must be from 2 to 8. Received: {name}={value}.")
    return value


def one_of(name: str, value: str, known: Iterable[str]) -> str:
    """Return `value` if it is among `known`, else raise with the list and the nearest name."""
    known = list(known)
    if value not in known:
        unknown(name, value, known)
    return value


def unknown(name: str, value: str, known: Iterable[str]) -> NoReturn:
    """Raise, of a value that is not among `known`, with the list and the nearest name."""
    known = list(known)
    raise UsageError(
        f"{name} must be one of: {', '.join(known)}. Received: {name}={shown(value)}."
        f"{nearest(value, known)}"
    )


def different(name: str, values: Sequence[Any]) -> Sequence[Any]:
    """Return `values` if there are any and no two are equal, else raise."""
    if not values or any(value in values[:place] for place, value in enumerate(values)):
        raise UsageError(
            f"{name} must be a list of one or more different values. "
            f"Received: {name}={shown(values)}."
        )
    return values


def known_keys(where: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Raise at the first key that is not among `known`, with the list and the nearest name."""
    known = list(known)
    for key in keys:
        if key not in known:
            error = UsageError(
                f"{where}: unknown key {shown(key)}.{nearest(str(key), known)} "
                f"Known keys: {', '.join(known)}."
            )
            error.unknown_key = True
            raise error


def same_classes(teacher_classes: int, student_classes: int) -> None:
    """Raise unless teacher and student tell the same number of classes apart."""
    if teacher_classes != student_classes:
        raise UsageError(
            f"Teacher and student must have the same classes. Received: teacher with "
            f"{teacher_classes}, student with {student_classes}. Give both the same last layer."
        )


def same_input(teacher_shape: Shape, student_shape: Shape) -> None:
    """Raise unless two input shapes agree; `None` agrees with every size."""
    same_rank = len(teacher_shape) == len(student_shape)
    sizes = zip(teacher_shape, student_shape, strict=False)
    if not same_rank or any(t is not None and s is not None and t != s for t, s in sizes):
        raise UsageError(
            f"Teacher and student must take the same images. Received: teacher input "
            f"{tuple(teacher_shape)}, student input {tuple(student_shape)}. "
            f"Put a resizing layer in front of one of them."
        )


def label_range(smallest: int, largest: int, classes: int) -> None:
    """Raise unless every label is one of 0 .. classes - 1."""
    if smallest < 0 or largest >= classes:
        raise UsageError(
            f"Labels must lie in 0..{classes - 1} for {classes} classes. "
            f"Received: labels from {smallest} to {largest}."
        )


def no_empty_class(counts: Iterable[int], class_names: Iterable[str], split: str) -> None:
    """Raise if a class has no example in `split`."""
    empty = [name for number, name in zip(counts, class_names, strict=True) if number == 0]
    if empty:
        more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
        raise UsageError(
            f"Every class needs at least one {split} example. Received none of: "
            f"{', '.join(map(str, empty[:10]))}{more}. Add images or remove the class."
        )


def enough_examples(examples: int, batch_size: int) -> None:
    """Raise unless there is at least one full batch."""
    if examples < batch_size:
        raise UsageError(
            f"Training needs at least one full batch. Received: {examples} training examples and "
            f"batch_size={batch_size}. Lower training.batch_size or give more examples."
        )


def installed(packages: Iterable[str], extra: str, what: str) -> None:
    """Raise unless the packages of an optional part of tfdistill can be imported."""
    if lacking := missing(packages):
        raise UsageError(
            f"{what} needs {', '.join(lacking)}, which is not installed. "
            f'Run: pip install "tfdistill[{extra}]"'
        )


def missing(packages: Iterable[str]) -> list[str]:
    """Return those packages that cannot be imported, as they are not installed."""
    return [name for name in packages if not _importable(name)]


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # it was said that it cannot be
        return False


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text as one sentence, to be quoted in a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0][:300].rstrip(":") if lines else type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."


def of_reader(error: BaseException) -> UsageError | None:
    """Return the error of this package that ended one of its readers within a tf.data pipeline.

    Args:
        error: What TensorFlow raised, whose text holds that of the reader's error; None is returned
            of any other.
    """
    found = re.search(r"\b(?:UsageError|DamagedError): (.+)", getattr(error, "message", None) or "")
    return UsageError(found[1]) if found else None


@contextlib.contextmanager
def readers() -> Iterator[None]:
    """Raise the error of a reader within a tf.data pipeline instead of TensorFlow's around it."""
    try:
        yield
    except Exception as error:
        if found := of_reader(error):
            raise found from error
        raise


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) or hasattr(value, "dtype")
    )


def is_finite(value: Any) -> bool:
    """Return whether a value is a number, neither infinite nor NaN."""
    try:
        return _is_number(value) and math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def nearest(value: str, known: list[str]) -> str:
    """Return `Did you mean ...?` after a space, or nothing where no known value is near."""
    near = difflib.get_close_matches(str(value), known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
