"""Text in the cells of a study's tables; a value that there is not is a dash."""

from tfdistill.records import Spread
from tfdistill.reporting.significance import Comparison

MISSING = "–"


def percent(value: Spread | None) -> str:
    """Return a spread of values in 0..1 in percent, e.g. `86.38 ± 0.70`."""
    return value.text() if value else MISSING


def plain(value: Spread | None, digits: int = 3) -> str:
    """Return a spread as it is, e.g. `0.843 ± 0.015`."""
    return value.text(1.0, digits) if value else MISSING


def gain(value: Spread | None, baseline: Spread | None) -> str:
    """Return how far a mean in 0..1 is above another, in points, e.g. `+0.46`."""
    return f"{100 * (value.mean - baseline.mean):+.2f}" if value and baseline else MISSING


def p_value(compared: Comparison | None) -> str:
    """Return the p value of a comparison, e.g. `0.044` or `<0.001`."""
    if compared is None:
        return MISSING
    return f"{compared.p:.3f}" if compared.p >= 0.001 else "<0.001"
