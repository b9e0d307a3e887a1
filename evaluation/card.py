"""A model card: what a run trained, on what it stands, and every report about it."""

from pathlib import Path

import yaml

from evaluation import lineage
from evaluation.report import markdown
from evaluation.results import Results, list_results, read_samples
from feedback.workspace import Workspace
from training import models
from training.runs import Run

CARD = "MODEL_CARD.md"


def model_card(workspace: Workspace, run: Run, merged: bool = False) -> str:
    """The run's own card with its lineage, its recipe and the tables of its reports, headed as hubs read it.

    Args:
        merged: of the merged weights; else of what was trained.
    """
    about = [results for results in list_results(workspace.reports) if run.id in results.models]
    parts = [
        _front_matter(run, merged),
        (run.folder / CARD).read_text().rstrip(),
        "## Lineage",
        _lineage(workspace, run),
        "## Evaluation",
        *(
            [_report(workspace, results.of(run.id)) for results in about]
            or [f"Not evaluated yet: `veritune eval {run.id}`."]
        ),
        "## Recipe",
        f"```yaml\n{_recipe(run)}```",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(run: Run, merged: bool) -> str:
    origin = run.origin["name"]
    entries = ["library_name: " + ("transformers" if merged or run.tuning == "full" else "peft"), "tags: [veritune]"]
    # A hub would look for a folder of this machine as a repository of its own.
    if models.short_name(origin) == origin:
        entries.insert(0, f"base_model: {origin}")
    return "\n".join(["---", *entries, "---"])


def _lineage(workspace: Workspace, run: Run) -> str:
    rows = ["| kind | id | hash | state |", "|---|---|---|---|"]
    for link in lineage.ancestors(workspace, run):
        name = models.short_name(link.id) if link.kind == "model" else link.id
        rows.append(f"| {link.kind} | {name} | {(link.hash or '-')[:12]} | {link.state} |")
    return "\n".join(rows)


def _recipe(run: Run) -> str:
    # Where folders lie on this machine is nobody's business.
    keys = run.manifest["recipe"]
    template = Path(keys["chat_template"]).name if keys["chat_template"] else None
    shown = {"model": models.short_name(keys["model"]), "chat_template": template}
    return yaml.safe_dump(keys | shown, sort_keys=False)


def _report(workspace: Workspace, results: Results) -> str:
    samples = [
        sample
        for sample in read_samples(workspace.reports / results.report_id)
        if sample.model in (results.tuned, None)
    ]
    return (
        f"{results.report_id}, against {results.base} ({results.created_at:%Y-%m-%d}). {markdown(results, samples)}"
    ).rstrip()
