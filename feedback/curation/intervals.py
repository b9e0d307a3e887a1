"""Intervals of 95% that the curation's figures share."""

Z = 1.959964


def wilson(count: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a share (1927); expected counts need not be whole."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, n, method="wilson")
    return float(low), float(high)
