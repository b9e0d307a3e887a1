"""`export` and `serve`: a run's model for use elsewhere."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from ui.cli.common import current_workspace, say

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a finished run, e.g. dpo-1.")]
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def register(app: typer.Typer) -> None:
    for command in (export, serve):
        app.command()(command)


def export(
    run_id: RunId,
    kind: Annotated[
        Literal["merged", "adapter", "gguf", "hub"],
        typer.Argument(
            metavar="merged|adapter|gguf|hub",
            help="One set of weights, what was trained alone, llama.cpp's form, or a repository on the hub.",
        ),
    ],
    to: Annotated[Path | None, typer.Option(help="Where to write; default: exports/RUN in the workspace.")] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="Of merged weights; auto: the base's own.")
    ] = "auto",
    repo: Annotated[str | None, typer.Option(metavar="NAME", help="With hub: the repository, e.g. me/model.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="With hub: upload merged weights, not the adapter.")] = False,
    public: Annotated[bool, typer.Option("--public", help="With hub: readable by everybody.")] = False,
) -> None:
    """Write a run's model as safetensors, merged or as its adapter, as GGUF, or to the hub, with its model card."""
    from evaluation.card import model_card
    from feedback.errors import UserError
    from training import export as exporting
    from training import merging, runs

    if (kind == "hub") != (repo is not None):
        raise UserError("export: hub and --repo NAME belong together; nothing is uploaded without a name")
    workspace = current_workspace()
    run = runs.find(workspace, run_id)
    run.verify_weights()
    card = model_card(workspace, run, merged or kind == "merged")
    if repo is not None:
        folder = merging.cached(workspace, run, say) if merged else run.weights
        say(f"{run.id}: {exporting.upload(folder, card, repo, public, f'{run.id} by veritune')}")
        return
    target = to or workspace.root / "exports" / run.id / (f"{run.id}.gguf" if kind == "gguf" else kind)
    exporting.check_target(target)
    if kind == "merged":
        merging.merge(workspace, run, target, precision, card, say)
    elif kind == "gguf":
        exporting.export_gguf(workspace, run, target, say)
    else:
        exporting.export_adapter(run, target, card)
    say(f"{run.id}: {target}")


def serve(
    run_id: RunId,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    server: Annotated[
        Literal["auto", "transformers", "vllm"],
        typer.Option(help="Whose; auto: vLLM's where it and a GPU are there, else transformers' own."),
    ] = "auto",
) -> None:
    """Serve a run's merged model as an OpenAI-compatible endpoint, under the run's id."""
    from training import merging, runs, serving

    workspace = current_workspace()
    folder = merging.cached(workspace, runs.find(workspace, run_id), say)
    command = serving.command(folder, host, port, server)
    say(f"model {run_id} at http://{host}:{port}/v1; Ctrl-C ends it")
    if host not in LOOPBACK:
        say(f"warning: whoever reaches {host} can ask it, without a password")
    # In this process' place, so that no second copy of the model or of torch stays in memory.
    os.chdir(folder.parent)
    os.execve(command[0], command, os.environ | {"HF_HUB_OFFLINE": "1"})
