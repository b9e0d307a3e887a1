"""One of a run's processes, as torchrun starts it: `python -m training.worker WORKSPACE RUN`."""

import os
import sys
import threading
import time
import warnings
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from feedback.workspace import Workspace
from training import launch, runs, stopping
from training.prepare import encode, prepare


@record
def main() -> None:
    """Go through the training; what goes wrong is in the run's log, and told to who started this process."""
    # What libraries announce to each other's developers is not for the person at the screen.
    warnings.filterwarnings("ignore", category=FutureWarning)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    workspace = Workspace(Path(sys.argv[1]))
    run = runs.find(workspace, sys.argv[2])
    with launch.logged(run, lambda line: None) as tell, stopping.heeded():
        prepared = prepare(workspace, run.recipe.model_dump(), str(run.folder / "recipe.yaml"))
        first = int(os.environ["RANK"]) == 0
        launch.work(run, prepared, encode(prepared), tell if first else lambda line: None)


def _end_with_parent(parent: int) -> None:
    """A process whose launcher was killed must not go on writing what a resumed run writes again."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
