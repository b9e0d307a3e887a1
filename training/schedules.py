"""Learning-rate schedules as factors of the peak."""


def linear(step: int, total: int, warmup: float) -> float:
    """Rise linearly over the warm-up, then fall linearly to zero at the end.

    The first step already moves the weights, unlike transformers' own schedules, whose first factor is zero.

    Args:
        step: optimiser steps taken so far.
        total: optimiser steps of the whole run.
        warmup: share of steps in which the rate rises.
    """
    rising = round(total * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(0.0, (total - step) / max(1, total - rising))
