"""The `veritune` command: one file for each group of commands, and the one place where errors become lines."""

import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ui.cli import data, evaluate, export, feedback, setup, train, watch
from ui.cli.common import chosen, say

app = typer.Typer(
    help="Fine-tune language models from feedback so that they hallucinate less, and prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
setup.register(app)
app.add_typer(feedback.app, name="feedback")
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
evaluate.register(app)
export.register(app)
watch.register(app)


@app.callback()
def options(
    workspace: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the workspace; default: VERITUNE_WORKSPACE, else the nearest that holds veritune.toml."
        ),
    ] = None,
) -> None:
    chosen.folder = workspace


def main() -> None:
    """Run the command line; a mistake of the user's ends with 2, a fault of ours with 1 and a traceback in the log."""
    # Set before any library is imported, so that progress bars and advice of theirs don't drown what we say.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait must not spin for long: beside any other load that makes torch several times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    # A bar for what takes longer, and only for a person who watches.
    os.environ.setdefault("TQDM_DELAY", "3")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    # What libraries announce to each other's developers is not for the person at the screen.
    warnings.filterwarnings("ignore", category=FutureWarning)
    from feedback.errors import UserError
    from training.errors import TrainingError

    try:
        app()
    except UserError as error:
        for line in error.lines:
            say(f"error: {line}")
        sys.exit(2)
    except TrainingError as error:
        say(f"failed: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
    except Exception as error:
        sys.exit(_report_fault(error))


def _report_fault(error: Exception) -> int:
    from feedback import workspace

    try:
        log = workspace.find(chosen.folder).log
    except Exception:
        log = Path(tempfile.gettempdir()) / "veritune.log"
    handler = logging.FileHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("veritune.fault")
    logger.addHandler(handler)
    logger.propagate = False
    logger.error("veritune %s", " ".join(sys.argv[1:]), exc_info=error)
    say(f"failed: {' '.join(str(error).split())[:300] or type(error).__name__} (details in {log})")
    return 1
