"""`veritune data`: dataset versions, from feedback to files."""

from pathlib import Path
from typing import Annotated

import typer

from ui.cli.common import AsJson, current_workspace, print_json, print_table, say

app = typer.Typer(help="Build, show, compare and export dataset versions.", no_args_is_help=True)
Reference = Annotated[
    str, typer.Argument(metavar="NAME[@vN]", help="A dataset; its latest version unless one is named.")
]


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="The dataset to make a new version of.")],
    from_: Annotated[list[str] | None, typer.Option("--from", help="Collection; default: all.")] = None,
    split: Annotated[str, typer.Option(help="Shares of train, validation and test prompts.")] = "0.8,0.1,0.1",
    aggregate: Annotated[
        str, typer.Option(help="majority, or dawid-skene: raters weighed by how reliable they are.")
    ] = "majority",
    conflicts: Annotated[
        str,
        typer.Option(
            help="Opposed votes of equal weight: drop, soft (keep at 0.5) or adjudicate (into NAME-conflicts)."
        ),
    ] = "drop",
    near_duplicates: Annotated[
        float | None, typer.Option(help="Drop rows whose prompt and answers are each so similar (0.5 to 1), e.g. 0.8.")
    ] = None,
    balance_length: Annotated[
        bool, typer.Option("--balance-length", help="Drop pairs until the longer answer is no likelier to be chosen.")
    ] = False,
    raters: Annotated[
        str, typer.Option(help="Whose word counts: all, people (and scripts that stand in for them) or ai.")
    ] = "all",
    as_json: AsJson = False,
) -> None:
    """Make a new version of a dataset from the feedback that is there.

    Exact duplicates go, and rows that give away a question of the files that veritune.toml names under [evaluation].
    """
    from feedback.curation.build import build
    from feedback.curation.options import Options
    from feedback.curation.splits import parse_fractions

    options = Options(aggregate, conflicts, near_duplicates, balance_length, raters)
    version, new = build(current_workspace(), name, from_ or [], parse_fractions(split), options, say)
    if not new:
        say(f"{version.id} holds exactly this already; no new version was made")
    summary, steps = version.summary, version.manifest.get("steps", [])
    if as_json:
        print_json(summary | {"steps": steps, "options": version.manifest.get("options")})
    else:
        title = f"{version.id}  {summary['fingerprint'][:12]}"
        print_table(["step", "pairs", "demonstrations"], steps, title=title)
        print_table(["split", "rows"], list(summary["splits"].items()))
        say(f"agreement, raters, length and plots: {version.folder / 'CARD.md'}")
    if empty := [split for split, rows in summary["splits"].items() if not rows]:
        say(f"note: no rows in {', '.join(empty)}; more feedback, or other --split shares, would fill it")


@app.command()
def show(reference: Reference, as_json: AsJson = False) -> None:
    """Say what a version holds; its bytes are checked."""
    from feedback.versions import load

    version = load(current_workspace(), reference)
    _print(version.summary, version.id, as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all versions."""
    from feedback.versions import all_versions

    found = [version.summary for version in all_versions(current_workspace())]
    if as_json:
        print_json(found)
    else:
        rows = [(f"{v['name']}@v{v['version']}", v["pairs"], v["demonstrations"], v["fingerprint"][:12]) for v in found]
        print_table(["version", "pairs", "demonstrations", "fingerprint"], rows)


@app.command()
def diff(old: Reference, new: Reference, as_json: AsJson = False) -> None:
    """Say which rows the second version has and the first has not, and the reverse."""
    from feedback.versions import diff, load

    workspace = current_workspace()
    changes = diff(load(workspace, old), load(workspace, new))
    if as_json:
        print_json(changes)
    else:
        rows = [(kind, len(change["added"]), len(change["removed"])) for kind, change in changes.items()]
        print_table(["rows", "only in the second", "only in the first"], rows)


@app.command()
def export(
    reference: Reference,
    form: Annotated[
        str, typer.Argument(metavar="FORMAT", help="trl, openai, hh-rlhf, alpaca, sharegpt, csv or parquet.")
    ],
    folder: Annotated[Path, typer.Argument(help="A new folder; one file for each kind and split.")],
) -> None:
    """Write a version's rows as files that other tools read."""
    from feedback.formats import export_version
    from feedback.versions import load

    result = export_version(load(current_workspace(), reference), form, folder)
    for path, rows in result.files.items():
        say(f"{path}: {rows} rows")
    for kind, rows in result.left_out.items():
        say(f"left out: {rows} {kind}, which {form} can't hold")


def _print(summary: dict, version_id: str, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    rows = [("preference pairs", summary["pairs"]), ("demonstrations", summary["demonstrations"])]
    rows += [(f"in {split}", count) for split, count in summary["splits"].items()]
    rows += [(f"set aside: {step}", count) for step, count in summary["dropped"].items()]
    print_table(["rows", "count"], rows, title=f"{version_id}  {summary['fingerprint'][:12]}")
