"""What a study's comparisons say, in words that follow from its numbers alone.

`verdict` opens every report. `published_verdict` says how an interval stands to a published value:
a small study that comes out otherwise than a large one contradicts nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfdistill.records import Record, by_row, spread
from tfdistill.reporting.significance import CLAIM_SEEDS, Comparison, Family
from tfdistill.utils.text import counted, fraction, mean_std

CONTRADICTS = "contradicts"
NOT_SEEN = "not seen at this size"
COMPATIBLE = "compatible, not shown"
SHOWN = "compatible, an effect is shown"
NOT_COMPARABLE = "not comparable"
ONCE = "published once"
# Networks, images and epochs of a study within this factor of the published are of its size.
SAME_SIZE = 2.0
# Families that the verdict is about.
TOLD = 2


def published_verdict(
    interval: Comparison | None,
    published: float | None,
    same_size: bool,
    runs: int = 1,
) -> str:
    """Return how a difference stands to the published one.

    Args:
        interval: Ours, None where there is none.
        published: The published difference as a share of 1, None where there is none.
        same_size: Whether network, images and epochs are the published within `SAME_SIZE`.
        runs: Of how many runs the published value is; of one run nobody knows its deviation.

    Returns:
        `contradicts` only where the interval excludes a value of several runs at its own size;
        `not seen at this size` where it excludes one of another size; `published once` where it
        excludes the only run of its size; `compatible, not shown` where it holds the value and 0,
        `compatible, an effect is shown` where it holds the value and not 0; else `not comparable`.

    Example:
        >>> published_verdict(Comparison(-0.004, -0.009, 0.002, 0.17, 5), 0.02, same_size=False)
        'not seen at this size'
    """
    if interval is None or published is None:
        return NOT_COMPARABLE
    if interval.low <= published <= interval.high:
        return SHOWN if interval.differs else COMPATIBLE
    if not same_size:
        return NOT_SEEN
    return CONTRADICTS if runs > 1 else ONCE


def same_size(ours: Mapping[str, float], published: Mapping[str, float]) -> bool:
    """Return whether all published sizes (parameters, images, epochs) are ours within a factor of
    two; a size that is not known is none of ours."""
    return all(
        name in ours and 1 / SAME_SIZE <= ours[name] / size <= SAME_SIZE
        for name, size in published.items()
    )


def few_seeds(seeds: int) -> str:
    """Return the sentence that stands beside intervals of too few seeds."""
    return f"{counted(seeds, 'seed').capitalize()} are too few for a claim."


def verdict(
    families: Sequence[Family],
    records: Iterable[Record] = (),
    names: Mapping[str, str] | None = None,
) -> str:
    """Return one or two sentences on what came out, of the first two families.

    Of one row alone, which has nothing to be compared with, they are its accuracy.

    Args:
        families: What was compared, the study's first question first.
        records: All records, which tell the sizes of students and teachers.
        names: Words for rows whose own names make no sentence.
    """
    records = list(records)
    if not families:
        rows = by_row(records)
        if len(rows) == 1 and (found := spread(records, "test_accuracy")):
            seeds = f", {counted(found.count, 'seed')}" if found.count > 1 else ""
            return f"Test accuracy {mean_std(found)} %{seeds}."
        return (
            "No row has two seeds in common with what it is compared with, so nothing here can be "
            "told from luck."
        )
    sizes = _sizes(records)
    told = families[:TOLD]
    sentences = [_sentence(family, names or {}, sizes) for family in told]
    fewest = min((family.seeds for family in told if family.seeds > 1), default=None)
    if fewest and fewest < CLAIM_SEEDS:
        sentences.append(few_seeds(fewest))
    return " ".join(sentences)


def power(families: Sequence[Family]) -> str:
    """Return which true difference the comparisons of a verdict would have shown, in words.

    Example:
        >>> power(families)
        'differences of 1.1 or 2.0 points are seen four times in five'
    """
    told = [family for family in families[:TOLD] if family.seeds > 1]
    seen = list(dict.fromkeys(_points(family.detectable) for family in told))
    return f"differences of {' or '.join(seen)} points are seen four times in five" if seen else ""


def _sentence(family: Family, names: Mapping[str, str], sizes: Mapping[str, str]) -> str:
    start = f"{family.title}: " if family.title else ""
    if family.seeds == 1:
        return _begun(start + _of_images(family, names))
    seeds = counted(family.seeds, "seed")
    apart = [row for row, found in family.rows.items() if found.differs]
    unseen = f"one of {_points(family.detectable)} points would have been seen four times in five"
    if len(family.rows) == 1:
        ((row, found),) = family.rows.items()
        name = names.get(row, _quoted(row))
        if not apart:
            text = (
                f"no difference between {name} and {family.baseline} can be told from luck "
                f"({_ends(found)} points, {seeds}); {unseen}."
            )
        else:
            side = _side(found, family.baseline, family.together)
            text = f"{name} is {side}, {seeds}){sizes.get(row, '')}."
        return _begun(start + text)
    count = len(family.rows)
    if not apart:
        text = (
            f"no difference from {family.baseline} can be told from luck in any of "
            f"{counted(count, 'row')} ({seeds}); {unseen}."
        )
        return _begun(start + text)
    above = sum(family.rows[row].difference > 0 for row in apart)
    text = (
        f"{above or 'none'} of {count} rows {'are' if above > 1 else 'is'} above "
        f"{family.baseline} and {len(apart) - above or 'none'} below by more than luck ({seeds}, "
        "simultaneous 95 % intervals)"
    )
    if (best := family.rows.get(family.best)) is not None:
        name = names.get(family.best, _quoted(family.best))
        size = sizes.get(family.best, "") if best.differs else ""
        text += f"; the best on validation images, {name}, has {_ends(best)} points{size}"
    return _begun(f"{start}{text}.")


def _of_images(family: Family, names: Mapping[str, str]) -> str:
    """Return what is said of two networks on the same test images."""
    row, found = next(iter(family.rows.items()))
    name = names.get(row, _quoted(row))
    about = "of these two networks on the same test images"
    if found.differs:
        return f"{name} is {_side(found, family.baseline)}, {about})."
    return f"{name} and {family.baseline} cannot be told apart ({_ends(found)} points, {about})."


def _side(found: Comparison, baseline: str, together: int = 1) -> str:
    """Return e.g. `3.7 points above the student alone (95 % interval 2.9 to 4.6`."""
    kind = "simultaneous 95 % interval" if together > 1 else "95 % interval"
    sign, side = (1, "above") if found.difference > 0 else (-1, "below")
    low, high = sorted((sign * found.low, sign * found.high))
    return (
        f"{_points(sign * found.difference)} points {side} {baseline} ({kind} "
        f"{_points(low)} to {_points(high)}"
    )


def _ends(found: Comparison) -> str:
    """Return e.g. `+0.5, -0.8 to +1.7`."""
    values = (found.difference, found.low, found.high)
    first, low, high = (f"{'+' if value > 0 else ''}{_points(value)}" for value in values)
    return f"{first}, {low} to {high}"


def _points(share: float) -> str:
    """Return points with one decimal; with two where one would show 0."""
    return f"{100 * share:.1f}" if abs(share) >= 0.0005 else f"{100 * share:.2f}"


def _quoted(row: Any) -> str:
    if isinstance(row, str):
        return f"“{row}”"
    alpha, temperature = row
    return f"alpha {alpha:g} at T {temperature:g}"


def _begun(sentence: str) -> str:
    """Return a sentence with a capital, unless it begins with a name such as `cnn2`."""
    named = any(letter.isdigit() for letter in sentence.partition(" ")[0])
    return sentence if named else sentence[:1].upper() + sentence[1:]


def _sizes(records: Iterable[Record]) -> dict[str, str]:
    """Return how much smaller than its teacher each row's network is, e.g. `, at a fifth of ...`"""
    records = list(records)
    parameters = {record.name: record.parameters for record in records}
    found: dict[str, str] = {}
    for record in records:
        teachers = [parameters.get(name, 0) for name in record.config.get("teachers", ())]
        if teachers and all(teachers) and record.parameters:
            share = record.parameters / sum(teachers)
            whose = "the teacher's" if len(teachers) == 1 else "the ensemble's"
            found[record.row] = (
                f", at about {fraction(share)} of {whose} size" if share < 0.6 else ""
            )
    return found
