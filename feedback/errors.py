"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """Something the user can put right; each line names the value, the place and the remedy.

    Args:
        lines: one self-contained sentence for each mistake found.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
