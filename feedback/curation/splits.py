"""Train, validation and test by prompt, so that no question stands on both sides."""

from feedback.errors import UserError
from feedback.schema import Message, prompt_key

SPLITS = ("train", "validation", "test")


def parse_fractions(text: str) -> tuple[float, float, float]:
    """`"0.8,0.1,0.1"` as train, validation and test.

    Raises:
        UserError: not three shares that sum to one.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"--split {text}: give train, validation and test shares that sum to 1, e.g. 0.8,0.1,0.1")
    return shares


def split_of(prompt: tuple[Message, ...], fractions: tuple[float, float, float]) -> str:
    """The split of a prompt, by its hash alone.

    Depending on nothing else keeps a prompt where it was when later versions add data, so that a model is never
    tested on what an earlier version trained it on.
    """
    position = int(prompt_key(prompt)[:15], 16) / 16**15
    if position < fractions[0]:
        return "train"
    return "validation" if position < fractions[0] + fractions[1] else "test"
