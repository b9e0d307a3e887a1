"""What can go wrong while a run looks well: each alarm is a pure function of the lines of metrics.jsonl.

`first` and `last` are means over the first and the last 5 lines that have the figure, and something "rises" where
last - first is more than four times its standard error. An alarm is raised once in a run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, variance
from typing import Any, NamedTuple

from training.recipe_base import Recipe

Line = Mapping[str, Any]
WINDOW = 5
# How many losses in a row must be far too high, or too high, and how many lines they are judged by.
FAR_ABOVE, ABOVE, REMEMBERED = 3, 10, 200


@dataclass(frozen=True)
class Alarm:
    """Something that the person should know of.

    Args:
        check: what is wrong and what to do about it, or None.
        fatal: whether the run must not go on.
    """

    name: str
    check: Callable[[Sequence[Line], Recipe], str | None]
    fatal: bool = False


class Raised(NamedTuple):
    """An alarm that went off."""

    alarm: Alarm
    message: str


def raised(lines: Sequence[Line], recipe: Recipe) -> list[Raised]:
    """The alarms that the newest line sets off and no earlier one did."""
    before = {line["alarm"] for line in lines if "alarm" in line}
    found = [Raised(alarm, alarm.check(lines, recipe) or "") for alarm in ALARMS if alarm.name not in before]
    return [each for each in found if each.message]


def sound_until(lines: Sequence[Line]) -> int:
    """The last step whose loss was within the noise of the level (see `divergence`), or before one that is no number.

    A checkpoint of an earlier step is sound: a loss shows what the updates before it have done.
    """
    trained = _with(lines, "loss")[-REMEMBERED:]
    sound = [line for line in trained if math.isfinite(line["loss"])]
    if not sound:
        return 0
    if len(sound) < len(trained):
        return int(sound[-1]["step"])
    most = min(level for level, _ in _levels(sound)) + _noise(sound)
    return next(line["step"] for line in reversed(sound) if line["loss"] <= most)


def not_a_number(lines: Sequence[Line], recipe: Recipe) -> str | None:
    """A loss or a gradient's norm is NaN or infinite."""
    trained = _with(lines, "loss")
    for name in ("loss", "grad_norm"):
        value = trained[-1].get(name, 0.0) if trained else 0.0
        if not math.isfinite(value):
            return (
                f"the {name.replace('grad_norm', 'norm of the gradient')} became {value} at step "
                f"{trained[-1]['step']}; try a lower learning_rate than {recipe.learning_rate:g}"
            )
    return None


def divergence(lines: Sequence[Line], recipe: Recipe) -> str | None:
    """3 losses in a row above 2 max(level, 1) + 2 + 4 noise, or 10 in a row above level + max(level / 4, 4 noise).

    The level is the least of the means of 3 losses in a row before, or the first loss, whose noise is larger as it is
    that of one step alone. The noise is the mean difference between neighbours over 1.128, which is the standard
    deviation if losses are independent and normal: of the losses before the 3, of all where 10 are looked at. The
    losses of PPO and GRPO don't tell how well it goes: PPO's value function errs by more when it meets higher rewards.
    """
    if recipe.method in ("ppo", "grpo"):
        return None
    trained = _with(lines, "loss")[-REMEMBERED:]
    if not (_all_above(trained, FAR_ABOVE) or _all_above(trained, ABOVE)):
        return None
    return (
        f"the loss is {trained[-1]['loss']:.3g} at step {trained[-1]['step']} and was as low as "
        f"{min(line['loss'] for line in trained):.3g}: training diverges; start anew with a lower learning_rate than "
        f"{recipe.learning_rate:g}"
    )


def chosen_falling(lines: Sequence[Line], recipe: Recipe) -> str | None:
    """DPO and KTO: over the last 10 lines the chosen answers are less probable than at the start.

    By more than 1 nat and a tenth of the reference's own -log p: rewards/chosen / beta < -max(1, 0.1 |log p_ref|).
    """
    seen = _with(lines, "rewards/chosen", "logps/chosen")[-2 * WINDOW :]
    if recipe.method not in ("dpo", "kto") or len(seen) < 2 * WINDOW:
        return None
    moved = fmean(line["rewards/chosen"] for line in seen) / getattr(recipe, "beta", 0.1)
    reference = fmean(line["logps/chosen"] for line in seen) - moved
    if moved >= -max(1.0, 0.1 * abs(reference)):
        return None
    return (
        f"the chosen answers have become e^{-moved:.1f} times less probable than they were: what is learned is to "
        "avoid the rejected ones, not to give the chosen; set sft_weight (e.g. 0.1), a higher beta or a lower "
        "learning_rate"
    )


def length_growing(lines: Sequence[Line], recipe: Recipe) -> str | None:
    """Answers of rollouts: last > 1.5 first, and more than 5 tokens longer."""
    lengths = _either(lines, "length/mean", "completions/mean_length")
    if not _enough(lengths):
        return None
    first, last = _ends(lengths)
    if last <= max(1.5 * first, first + 5):
        return None
    return (
        f"answers have grown from {first:.0f} to {last:.0f} tokens: look whether they say more, and whether the reward "
        "pays for length alone; lower max_new_tokens, or raise kl_coefficient"
    )


def kl_out_of_band(lines: Sequence[Line], recipe: Recipe) -> str | None:
    """PPO: last KL to the reference, in nats an answer, below -1 or above 3 kl_target (20 where there is none)."""
    if recipe.method != "ppo" or not (seen := _either(lines, "kl"))[WINDOW - 1 :]:
        return None
    last, most = fmean(seen[-WINDOW:]), 3 * (getattr(recipe, "kl_target", None) or 20 / 3)
    if last > most:
        return (
            f"KL to the reference is {last:.1f} nats an answer, more than {most:.0f}: the policy goes where the reward "
            "is not to be trusted; raise kl_coefficient, or lower learning_rate"
        )
    if last < -1:
        return (
            f"KL to the reference is {last:.1f}, which a KL can't be: answers are sampled from something else than the "
            "policy; set temperature=1"
        )
    return None


def entropy_out_of_band(lines: Sequence[Line], recipe: Recipe) -> str | None:
    """PPO and GRPO: last entropy, in nats a token, below a tenth of first, or above twice first and half a nat more."""
    if recipe.method not in ("ppo", "grpo") or not _enough(seen := _either(lines, "entropy")):
        return None
    first, last = _ends(seen)
    if last < 0.1 * first:
        return (
            f"entropy has fallen from {first:.2g} to {last:.2g} nats a token: every question gets one answer, so "
            "nothing is left to learn from; raise kl_coefficient, or lower learning_rate"
        )
    if last > 2 * first + 0.5:
        return (
            f"entropy has risen from {first:.2g} to {last:.2g} nats a token: the policy dissolves into noise; lower "
            "learning_rate, or raise kl_coefficient"
        )
    return None


def reward_hacking(lines: Sequence[Line], recipe: Recipe) -> str | None:
    """The reward rises, and the answers' length by a tenth the way that pays: the sign of the correlation of the two.

    And over some 5 lines that was at least 0.5, or at least 0.3 and 0.2 more than over the first. Not over the last:
    once all answers are as long as is allowed, there is none any more.
    """
    rewards, lengths, paid = (
        _either(lines, name) for name in ("reward/mean", "length/mean", "reward/length_correlation")
    )
    if not (_enough(rewards) and _enough(lengths) and _enough(paid)):
        return None
    windows = [fmean(paid[i : i + WINDOW]) for i in range(len(paid) - WINDOW + 1)]
    first, most = windows[0], max(windows, key=abs)
    sign = math.copysign(1, most)
    strong = abs(most) >= 0.5 or (abs(most) >= 0.3 and sign * (most - first) >= 0.2)
    was, became = _ends(lengths)
    moved = sign * (became - was) >= 0.1 * was and _rises([sign * length for length in lengths])
    if not (strong and moved and _rises(rewards)):
        return None
    return (
        f"the reward rises with {'longer' if most > 0 else 'shorter'} answers (correlation {most:.2f}, at first "
        f"{first:.2f}): it is hacked by length; judge a sample yourself before you trust it, and train the reward "
        "model on pairs in which length does not decide (`veritune data show` reports the bias)"
    )


def no_better_than_length(lines: Sequence[Line], recipe: Recipe) -> str | None:
    """Reward models, at validations from the end of the first epoch or of the run on.

    The accuracy on held-out pairs is no more than that of going by length alone.
    """
    judged = _with(lines, "eval_accuracy", "eval_length_accuracy")
    if not judged or judged[-1]["eval_accuracy"] > judged[-1]["eval_length_accuracy"]:
        return None
    line = judged[-1]
    if line["epoch"] < min(1.0, recipe.epochs) and line["step"] != recipe.max_steps:
        return None
    return (
        f"on {line['eval_n']:.0f} held-out pairs it is right in {line['eval_accuracy']:.1%} "
        f"({line['eval_accuracy_low']:.1%} to {line['eval_accuracy_high']:.1%}), going by length alone in "
        f"{line['eval_length_accuracy']:.1%}: it has learned nothing of use; get more or clearer pairs, or train longer"
    )


ALARMS = (
    Alarm("nan", not_a_number, fatal=True),
    Alarm("divergence", divergence, fatal=True),
    Alarm("chosen-falling", chosen_falling),
    Alarm("length-growing", length_growing),
    Alarm("kl-out-of-band", kl_out_of_band),
    Alarm("entropy-out-of-band", entropy_out_of_band),
    Alarm("reward-hacking", reward_hacking),
    Alarm("no-better-than-length", no_better_than_length),
)


def _all_above(trained: Sequence[Line], count: int) -> bool:
    """Whether the last `count` losses are all above what those before them allow."""
    far, before = count == FAR_ABOVE, trained[:-count]
    if not before:
        return False
    noise = _noise(before if far else trained)
    rooms = [(level, 4 * noise * times) for level, times in _levels(before)]
    most = min(2 * max(level, 1.0) + 2 + room if far else level + max(level / 4, room) for level, room in rooms)
    return all(line["loss"] > most for line in trained[-count:])


def _levels(trained: Sequence[Line]) -> list[tuple[float, float]]:
    """What the loss was at best, each with how many times the noise it has."""
    losses, steps = [line["loss"] for line in trained], [line["step"] for line in trained]
    in_a_line = median([b - a for a, b in pairwise(steps)] or [1])
    levels = [(losses[0], math.sqrt(in_a_line))]
    if len(losses) >= 3:
        levels.append((min(map(sum, zip(losses, losses[1:], losses[2:], strict=False))) / 3, 1.0))
    return levels


def _noise(trained: Sequence[Line]) -> float:
    return fmean([abs(b["loss"] - a["loss"]) for a, b in pairwise(trained)] or [0.0]) / 1.128


def _with(lines: Sequence[Line], *names: str) -> list[Line]:
    return [line for line in lines if all(name in line for name in names)]


def _either(lines: Sequence[Line], *names: str) -> list[float]:
    return [line[name] for line in lines for name in names if name in line]


def _enough(values: Sequence[float]) -> bool:
    return len(values) >= 2 * WINDOW


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return fmean(values[:WINDOW]), fmean(values[-WINDOW:])


def _rises(values: Sequence[float]) -> bool:
    first, last = _ends(values)
    error = math.sqrt((variance(values[:WINDOW]) + variance(values[-WINDOW:])) / WINDOW)
    return last - first > 4 * error
