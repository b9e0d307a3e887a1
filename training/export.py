"""A run's model for use elsewhere: its adapter, or merged and in llama.cpp's form, or on a hub."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from feedback.errors import UserError
from feedback.files import atomic_folder, write_atomic
from feedback.workspace import Workspace
from training import merging
from training.merging import CARD, MANIFEST, Report
from training.runs import Run

CONVERTER = "convert_hf_to_gguf.py"


def check_target(target: Path) -> None:
    """Make sure that an export replaces nothing.

    Raises:
        UserError: there is something.
    """
    if target.exists():
        raise UserError(f"{target}: exists already; remove it, or name another place with --to")


def export_adapter(run: Run, folder: Path, card: str) -> None:
    """Copy what a run trained, with its tokenizer and card."""
    with atomic_folder(folder) as staging:
        shutil.copytree(run.weights, staging, dirs_exist_ok=True)
        write_atomic(staging / MANIFEST, json.dumps(merging.provenance(run), indent=2) + "\n")
        write_atomic(staging / CARD, card)


def find_converter() -> str:
    """llama.cpp's converter.

    Raises:
        UserError: it is not to be found; the line says how to get it.
    """
    found = shutil.which(CONVERTER)
    if found is None:
        raise UserError(
            f"gguf: no {CONVERTER} on the PATH; it is a file of llama.cpp (github.com/ggml-org/llama.cpp), which needs "
            "`pip install gguf` beside it"
        )
    return found


def export_gguf(workspace: Workspace, run: Run, path: Path, report: Report) -> None:
    """Write the merged model as one GGUF file, by llama.cpp's own converter.

    Raises:
        UserError: there is no converter, or it can't convert this model; the line has its last words.
    """
    converter = find_converter()
    merged = merging.cached(workspace, run, report)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    report(f"converting by {converter}")
    ended = subprocess.run(
        [sys.executable, converter, str(merged), "--outfile", str(partial), "--outtype", "auto"],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode or not partial.is_file():
        partial.unlink(missing_ok=True)
        last = (ended.stderr.strip() or ended.stdout.strip() or "no word").splitlines()[-1]
        raise UserError(f"gguf: {CONVERTER} did not convert {run.id} ({last[:200]})")
    partial.replace(path)


def upload(folder: Path, card: str, repository: str, public: bool, commit: str) -> str:
    """Put a folder and its card into a repository on the hub, private unless asked otherwise; returns its address.

    Raises:
        UserError: the hub refuses, or is not to be reached; or the repository is public already.
    """
    # By which huggingface_hub speaks to the hub.
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        made = api.create_repo(repository, private=not public, exist_ok=True)
        # One that was there already keeps its visibility, which may not be what was asked for.
        if not public and not api.model_info(made.repo_id).private:
            raise UserError(f"hub: {repository} is public already; add --public, or name another --repo")
        api.upload_file(path_or_fileobj=card.encode(), path_in_repo=CARD, repo_id=made.repo_id, commit_message=commit)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, ignore_patterns=[CARD], commit_message=commit)
    except (HTTPError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(f"hub: {repository} can't be written ({' '.join(str(error).split())[:200]})") from None
    return str(made)
