"""The largest of several t values by luck alone: the distribution of Dunnett's test, and its power.

C. W. Dunnett, "A multiple comparison procedure for comparing several treatments with a control",
JASA 50 (1955) 1096-1121. It is integrated here: `scipy.stats.dunnett` samples, takes seconds for 45
rows and answers a little differently each time.
"""

import math

LEVEL = 0.05


def detectable(
    std: float,
    seeds: int,
    rows: int,
    degrees: int | None = None,
    together: int = 1,
    power: float = 0.8,
) -> float:
    """Return the true difference that a planned study shows with a probability of `power`.

    Args:
        std: Standard deviation over seeds of one value, beside the seed's effect on all rows.
        seeds: Seeds of every row and of the baseline, at least two.
        rows: Rows that are compared with the baseline.
        degrees: Of `std`; None means those of rows that have all seeds.
        together: Number of such families whose intervals shall hold at once (Bonferroni).
        power: Probability that the interval excludes 0.

    Example:
        >>> detectable(0.8, 5, 1)  # in the unit of std
        1.9...
    """
    from scipy.optimize import brentq
    from scipy.stats import nct

    degrees = degrees or rows * (seeds - 1)
    critical = critical_value(rows, degrees, together)
    shift = brentq(lambda x: nct.sf(critical, degrees, x) - power, 0.0, 20 + 10 * critical)
    return shift * std * math.sqrt(2 / seeds)


def critical_value(rows: int, degrees: int, together: int = 1) -> float:
    """Return the t that the largest of `rows` reaches by luck alone with a probability of 5 %, of
    5 % / `together` where so many families are told apart at once."""
    return LargestT(rows, 0.5, degrees).critical(LEVEL / together)


class LargestT:
    """Distribution of max |t_i| where no row differs, integrated on a grid.

    Given z, the standard normal part that all differences share, and s, the estimated over the true
    deviation, the rows are independent. With l^2 the correlation of any two differences,

        P(max |t_i| < t) = E_s E_z [Phi(u + v) - Phi(u - v)]^rows,
        u = l z / sqrt(1 - l^2), v = t s / sqrt(1 - l^2).

    Args:
        rows: Their number; of one, |t| has Student's distribution.
        correlation: l^2; 1/2 where all rows have as many seeds as the baseline.
        degrees: Degrees of freedom of the estimated deviation.
    """

    def __init__(self, rows: int, correlation: float, degrees: int):
        import numpy as np

        self.rows, self.correlation = rows, correlation
        self.z = np.linspace(-8.5, 8.5, 171)[:, None]  # [z, 1]
        self.weights_z = _shares(-(self.z[:, 0] ** 2) / 2)
        log_s = np.linspace(*_log_ends(degrees), 201)
        self.s = np.exp(log_s)[None, :]  # [1, s]
        # degrees * s^2 is chi-squared; this is the logarithm of the density of log s.
        self.weights_s = _shares(degrees * (log_s - np.exp(2 * log_s) / 2))

    def p(self, t: float) -> float:
        """Return P(max |t_i| >= t)."""
        from scipy.special import ndtr

        u = self.z * math.sqrt(self.correlation / (1 - self.correlation))
        v = self.s * t / math.sqrt(1 - self.correlation)
        inside = (ndtr(u + v) - ndtr(u - v)) ** self.rows  # [z, s]
        return min(max(1 - float(self.weights_z @ inside @ self.weights_s), 0.0), 1.0)

    def critical(self, level: float = LEVEL) -> float:
        """Return the t that is reached with a probability of `level`."""
        from scipy.optimize import brentq

        above = 4.0
        while self.p(above) > level:
            above *= 4
        return brentq(lambda t: self.p(t) - level, 0.0, above, xtol=1e-10)


def _log_ends(degrees: int) -> tuple[float, float]:
    """Return where log s, the estimated over the true deviation, practically begins and ends."""
    from scipy.special import gammainccinv, gammaincinv

    low, high = gammaincinv(degrees / 2, 1e-12), gammainccinv(degrees / 2, 1e-12)
    return math.log(2 * low / degrees) / 2, math.log(2 * high / degrees) / 2


def _shares(log_density):
    """Return the weights of equidistant points; the density vanishes at both ends."""
    import numpy as np

    density = np.exp(log_density - log_density.max())
    return density / density.sum()
