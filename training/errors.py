"""What ends a run before its end, apart from mistakes in what it was told."""


class TrainingError(Exception):
    """A run that must not go on; the message says why and what to try."""


class Stopped(KeyboardInterrupt):
    """The run was asked to end."""
