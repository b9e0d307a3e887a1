"""What is said where a disk is full: one line, and that nothing whole was lost."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from training.errors import TrainingError
from training.runs import Run

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Of an error by a library that keeps the system's number to itself; the last two are torch's.
SIGNS = ("No space left on device", "Disk quota exceeded", "File too large", "file write failed", "unexpected pos")


@contextmanager
def written(run: Run, what: str) -> Iterator[None]:
    """Turn the errors of a full disk into one line.

    Raises:
        TrainingError: there was no room to write.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, TrainingError) or not _is_full(error):
            raise
        free = shutil.disk_usage(run.folder).free / 2**20
        raise TrainingError(
            f"no room to write {what} on the disk of {run.folder} ({free:.1f} MiB are free); what was there is as it "
            f"was: free some, and `veritune train resume {run.id}` goes on from {run.last_whole}"
        ) from error


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if (isinstance(error, OSError) and error.errno in FULL) or any(sign in str(error) for sign in SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False
