"""`eval`, `report` and `lineage`: what training did to the model, and where it came from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ui.cli.common import AsJson, current_workspace, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.detectors import Accuracy
    from evaluation.results import Results

report = typer.Typer(help="Show and list reports.", no_args_is_help=True)
# What `--fail-if` ends with; 1 and 2 say that there is no figure to judge by.
REGRESSION = 3
ReportId = Annotated[str, typer.Argument(metavar="REPORT", help="Id of a report, e.g. eval-1.")]


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate)
    app.add_typer(report, name="report")
    app.command()(lineage)
    app.command()(validate_detectors)


def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET...", help="A run, a model's folder or hub name, endpoint:NAME; or several."),
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="TARGET", help="What they are compared with; default: what the run was trained on."),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(help="quick: the workspace's own questions; truthful: benchmarks too; full: more of them."),
    ] = "quick",
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further task: one of lm-eval's, or of evaluation/tasks.")
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A further check of the answers: consistency, semantic_entropy, claims, grounded."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first so many items of each task only.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts in one forward pass.")] = 32,
    merged: Annotated[
        bool, typer.Option("--merged", help="Ask the run's merged weights, as they are exported and served.")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Ask everything anew, though the models may have answered it before.")
    ] = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TASK:]METRIC<NUMBER", help='Exit with 3 if this holds of tuned minus base, e.g. "score@0.75<0".'
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a tuned model with its base on the same items, and write a report."""
    from evaluation.gate import failures, parse_conditions
    from evaluation.suites import evaluate

    workspace, conditions = current_workspace(), parse_conditions(fail_if or [])
    results = evaluate(
        workspace,
        targets[0],
        against,
        suite,
        limit,
        batch_size,
        say,
        conditions,
        task or [],
        merged,
        check or [],
        not no_cache,
        targets[1:],
    )
    if as_json:
        print_json(results.model_dump(mode="json"))
    else:
        _print(results)
        say(f"report: {workspace.reports / results.report_id / 'report.html'}")
    if failed := failures(conditions, results.comparisons):
        for line in failed:
            say(line)
        raise typer.Exit(REGRESSION)


@report.command()
def show(
    report_id: ReportId,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a model card.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a report's figures."""
    from evaluation.results import read_results, read_samples
    from feedback.errors import UserError
    from feedback.versions import NAME

    workspace = current_workspace()
    if not NAME.fullmatch(report_id):
        raise UserError(f"report {report_id!r}: no such report; `veritune report list` shows what there is")
    results = read_results(workspace.reports / report_id)
    if as_json:
        print_json(results.model_dump(mode="json"))
    elif as_markdown:
        from evaluation.report import markdown

        print(markdown(results, read_samples(workspace.reports / report_id)), end="")
    else:
        _print(results)
        say(f"report: {workspace.reports / report_id / 'report.html'}")


@report.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all reports."""
    from evaluation.results import list_results

    found = list_results(current_workspace().reports)
    if as_json:
        print_json(
            [
                {
                    "report_id": r.report_id,
                    "base": r.base,
                    "tuned": r.tuned,
                    "also": list(r.also),
                    "created_at": r.created_at,
                }
                for r in found
            ]
        )
    else:
        rows = [(r.report_id, ", ".join(r.models), r.base, r.created_at.isoformat(" ", "seconds")) for r in found]
        print_table(["report", "tuned", "base", "when"], rows)


def lineage(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="A report, run, NAME@vN, or the start of a judgement's id.")
    ],
    as_json: AsJson = False,
) -> None:
    """Say what a thing stands on, and what stands on it; every link is checked by its hash."""
    from evaluation.lineage import trace

    links = trace(current_workspace(), name)
    if as_json:
        print_json({"id": name, **links})
        return
    for direction, title in (("upstream", f"{name} stands on"), ("downstream", f"on {name} stand")):
        rows = [(link["kind"], link["id"], (link["hash"] or "-")[:12], link["state"]) for link in links[direction]]
        print_table(["kind", "id", "hash", "state"], rows, title=title)


def validate_detectors(
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="A run or model whose confidence and consistency are measured too."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Labelled answers, in place of those of veritune.toml."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first so many lines of each file only.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers in one forward pass.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Measure the evaluation's detectors on answers that people labelled, beside the answers' length alone."""
    import shlex
    import sys

    from evaluation import detectors
    from evaluation.validation import validate

    workspace = current_workspace()
    found = validate(workspace, model or [], _files(data or []), limit, batch_size, say)
    path = detectors.keep(workspace.detectors, found, shlex.join(["veritune", *sys.argv[1:]]))
    if as_json:
        print_json([accuracy.model_dump(mode="json") | {"verdict": accuracy.verdict} for accuracy in found])
    else:
        _print_detectors(found)
        say(f"kept in {path}")


def _files(pairs: "Sequence[str]") -> dict[str, Path]:
    from feedback.errors import UserError

    mistakes = [f"--data {pair}: write NAME=FILE" for pair in pairs if not all(pair.partition("=")[::2])]
    if mistakes:
        raise UserError(*mistakes)
    return {name: Path(path) for name, _, path in (pair.partition("=") for pair in pairs)}


def _print_detectors(found: "Sequence[Accuracy]") -> None:
    from evaluation.report import detector_cells

    columns = ["detector", "asks", "labelled answers", "n", "AUROC", "balanced accuracy", "length alone", "so it is"]
    print_table(columns, [detector_cells(each) for each in found], title="How good the detectors are")


def _print(results: "Results") -> None:
    from evaluation.report import bounds, calibration_cells, figure, probability, signed

    rows = [
        (
            c.name,
            c.n,
            figure(c.base),
            figure(c.tuned),
            signed(c.difference),
            bounds(c),
            probability(c.p_holm),
            c.verdict,
        )
        for c in results.comparisons
    ]
    columns = ["task: metric", "n", "base", "tuned", "difference", "95% interval", "p (Holm)", "tuned is"]
    print_table(columns, rows, title=f"{results.report_id}: {', '.join(results.models)} against {results.base}")
    for model in results.models:
        flips = results.of(model).flips
        say(f"flips: {flips.gained} items only {model} gets right, {flips.lost} only {results.base}")
    if results.calibration:
        columns = ["task: figure", "better is", "attempted", "base", "tuned", "difference"]
        title = "Confidence in the attempted answers, with 95% intervals"
        print_table(columns, [calibration_cells(each) for each in results.calibration], title=title)
    if measured := [each for found in results.detectors.values() for each in found]:
        _print_detectors(measured)
    if unmeasured := [name for name, found in results.detectors.items() if not found]:
        remedy = f"`veritune validate-detectors --model {results.tuned}`"
        say(f"detectors not measured yet, so not to be relied on: {', '.join(unmeasured)}; {remedy}")
    for rate in results.votes.rates if results.votes else ():
        say(
            f"votes: {rate.model} wins {rate.rate:.0%} against {results.base} (95% interval {rate.low:.0%} to "
            f"{rate.high:.0%}, n = {rate.n})"
        )
    for each in results.votes.strengths if results.votes else ():
        if each.model != results.base:
            of_each = f"{signed(each.strength)} (95% interval {signed(each.low)} to {signed(each.high)})"
            say(f"strength: {each.model} {of_each} in log-odds, {results.base} at 0")
    for note in results.notes:
        say(f"note: {note}")
