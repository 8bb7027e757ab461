"""Numbers as people read them: one format for each kind, in tables, reports, messages and progress.

Shares are in 0..1 and shown in percent or points; what there is not is a dash.
"""

from typing import Protocol

MISSING = "–"
# Some spreadsheets take the full-width forms for the same.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class MeanAndDeviation(Protocol):
    """What is shown of a `records.Spread`."""

    @property
    def mean(self) -> float: ...

    @property
    def std(self) -> float: ...

    @property
    def count(self) -> int: ...


class Compared(Protocol):
    """What is shown of a comparison of `reporting.significance`."""

    @property
    def difference(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def number(value: float | None, digits: int) -> str:
    """Return a number with so many decimals, e.g. `0.8431`."""
    return MISSING if value is None else f"{value:.{digits}f}"


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share in percent without the sign, e.g. `86.38`."""
    return MISSING if share is None else number(100 * share, digits)


def points(difference: float | None) -> str:
    """Return a difference of shares in points with its sign, e.g. `+0.46`."""
    return MISSING if difference is None else f"{round(100 * difference, 2) + 0.0:+.2f}"  # no -0.00


def mean_std(spread: MeanAndDeviation | None, scale: float = 100.0, digits: int = 2) -> str:
    """Return mean and deviation, e.g. `86.38 ± 0.70`; a single value has no deviation.

    Args:
        spread: A `records.Spread`; None or one of no values is a dash.
        scale: What both are multiplied with: 100 for shares in percent.
        digits: Decimals of both.
    """
    if spread is None or not spread.count:
        return MISSING
    mean = number(scale * spread.mean, digits)
    return f"{mean} ± {number(scale * spread.std, digits)}" if spread.count > 1 else mean


def gain(spread: MeanAndDeviation | None, baseline: MeanAndDeviation | None) -> str:
    """Return how far a mean in 0..1 is above another, in points; a dash where one is missing."""
    return points(spread.mean - baseline.mean if spread and baseline else None)


def interval(compared: Compared | None) -> str:
    """Return a difference of shares and its interval in points, e.g. `+3.70, +2.93 to +4.61`."""
    if compared is None:
        return MISSING
    return f"{points(compared.difference)}, {ends(compared)}"


def ends(compared: Compared) -> str:
    """Return the ends of an interval in points, e.g. `+2.93 to +4.61`."""
    return f"{points(compared.low)} to {points(compared.high)}"


def fraction(share: float) -> str:
    """Return about what part of a whole a share in 0..1 is, e.g. `half`, `a fifth` or `1/13`."""
    parts = round(1 / share)
    named = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth", 7: "a seventh"}
    named |= {8: "an eighth", 9: "a ninth", 10: "a tenth"}
    return named.get(parts, f"1/{parts}")


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def counted(count: int, noun: str) -> str:
    """Return a count in words up to ten and its noun, e.g. `five seeds` or `one seed`."""
    number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """Return text in one line that a terminal shows and does not obey."""
    letters = (x if x.isprintable() else x.encode("unicode_escape").decode() for x in text)
    return "".join(letters)


def printable_lines(text: str) -> str:
    """Return text as `printable` does, with its line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def cell(value: object) -> object:
    """Return what stands in a cell of a CSV file, where no name starts a formula.

    Spreadsheets take text that begins with one of `=+-@` for a formula: it gets an apostrophe
    before it, as OWASP advises ("CSV Injection"). What is no text stays what it is.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def setting(value: object) -> str:
    """Return a setting's value, a float to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def three_digits(value: float) -> str:
    """Return a number >= 0 to three digits and at most three decimals, e.g. `0.051` or `1234`."""
    exponent = int(f"{value:.2e}".partition("e")[2])
    return number(value, min(3, max(0, 2 - exponent)))


def amount(count: float) -> str:
    """Return a count to three digits, e.g. `11.2 M`; a dash of nothing."""
    return _in_units(count, "kMGT") or f"{count:.0f}" if count else MISSING


def file_size(count: int) -> str:
    """Return bytes to three digits in powers of 1000, e.g. `24.6 kB`."""
    found = _in_units(count, "kMG")
    return f"{found}B" if found else f"{count} B"


def disk_space(count: int) -> str:
    """Return many bytes as `3.4 MB` or, from 100 MB on, `1.20 GB`."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Return seconds as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return _minutes(seconds)
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def measured_time(seconds: float) -> str:
    """Return seconds to about three digits: `4.2 s`, `3 min 05 s`, `12 min` or `2 h 10 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 599.5:
        return _minutes(round(seconds))
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _minutes(seconds: int) -> str:
    return f"{seconds // 60} min {seconds % 60:02d} s"


def _in_units(count: float, prefixes: str) -> str:
    """Return a count in the largest unit that it fills, "" below the first of `prefixes`."""
    for power in range(len(prefixes), 0, -1):
        # 999.5 and above would round to four digits of the smaller unit.
        if count >= 0.9995 * 1000**power:
            return f"{three_digits(count / 1000**power)} {prefixes[power - 1]}"
    return ""
