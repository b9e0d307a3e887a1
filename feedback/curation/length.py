"""Is the longer answer the chosen one: what a model could learn from length alone, and pairs without that."""

from dataclasses import dataclass
from math import atanh, sqrt, tanh

from feedback.curation.intervals import Z, wilson
from feedback.curation.rows import Rows

REASON = "length balance"


@dataclass(frozen=True)
class LengthBias:
    """Lengths in characters, with 95% intervals.

    Args:
        n: pairs.
        difference: mean of the chosen answer's length less the rejected one's (normal interval).
        unequal: pairs of answers of unequal length, and `longer` the share of them whose longer answer is chosen
            (Wilson's interval).
        correlation: Pearson's, of the difference in length with the margin of preference (2p - 1), each pair taken
            both ways round, since which answer stands first is arbitrary (Fisher's interval).
    """

    n: int
    difference: float
    difference_interval: tuple[float, float]
    unequal: int
    longer: float | None
    longer_interval: tuple[float, float] | None
    correlation: float | None
    correlation_interval: tuple[float, float] | None


def length_bias(rows: Rows) -> LengthBias | None:
    """The figures of the pairs that stand; None where there are none."""
    n, total, squares, longer, shorter, product, margins = rows.db.execute(
        "SELECT count(*), sum(longer), sum(1.0 * longer * longer), sum(longer > 0), sum(longer < 0), "
        "sum(longer * (2 * probability - 1)), sum((2 * probability - 1) * (2 * probability - 1)) "
        "FROM rows WHERE kind = 'pairs' AND reason IS NULL"
    ).fetchone()
    if not n:
        return None
    mean = total / n
    error = Z * sqrt(max(0.0, squares / n - mean**2) / n)
    unequal = longer + shorter
    correlation = product / sqrt(squares * margins) if squares and margins else None
    return LengthBias(
        n,
        mean,
        (mean - error, mean + error),
        unequal,
        longer / unequal if unequal else None,
        wilson(longer, unequal) if unequal else None,
        correlation,
        _fisher(correlation, n) if correlation is not None else None,
    )


def balance(rows: Rows) -> None:
    """Drop pairs until length says nothing of preference, at any difference in length.

    In each band of differences (1, 2-3, 4-7, 8-15, ... characters) as many pairs are kept whose longer answer is
    chosen as whose shorter one is. Those that go are taken by a hash of their text: no other trait of theirs counts.
    """
    sides = rows.db.execute(
        "SELECT band, sum(longer > 0), sum(longer < 0) FROM rows "
        "WHERE kind = 'pairs' AND reason IS NULL AND band > 0 GROUP BY band"
    ).fetchall()
    for band, longer, shorter in sides:
        rows.db.execute(
            "UPDATE rows SET reason = ? WHERE number IN (SELECT number FROM rows WHERE kind = 'pairs' "
            "AND reason IS NULL AND band = ? AND (longer > 0) = ? ORDER BY identity, number LIMIT ?)",
            (REASON, band, longer > shorter, abs(longer - shorter)),
        )


def length_histogram(rows: Rows) -> list[tuple[str, int]]:
    """Standing pairs by how many characters longer the chosen answer is, in bands that double."""
    signed = rows.db.execute(
        "SELECT CASE WHEN longer < 0 THEN -band ELSE band END AS signed, count(*) FROM rows "
        "WHERE kind = 'pairs' AND reason IS NULL GROUP BY signed ORDER BY signed"
    )
    return [(_band_name(band), count) for band, count in signed]


def _band_name(band: int) -> str:
    if abs(band) < 2:
        return f"{band:+d}" if band else "0"
    least, most = 2 ** (abs(band) - 1), 2 ** abs(band) - 1
    return f"+{least} to +{most}" if band > 0 else f"-{most} to -{least}"


def _fisher(correlation: float, n: int) -> tuple[float, float] | None:
    if n < 4 or abs(correlation) >= 1:
        return None
    centre, error = atanh(correlation), Z / sqrt(n - 3)
    return tanh(centre - error), tanh(centre + error)
