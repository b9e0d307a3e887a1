"""`veritune feedback`: bring candidates, judgements and demonstrations into the workspace."""

from pathlib import Path
from typing import Annotated

import typer

from ui.cli import constitution, labelling
from ui.cli.common import AsJson, current_workspace, print_json, print_table, say

app = typer.Typer(help="Bring feedback in.", no_args_is_help=True)
labelling.register(app)
constitution.register(app)


@app.command("import")
def import_(
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="trl, hh-rlhf, ultrafeedback, pandalm, llmbar, alpaca, sharegpt, openai, csv or parquet.",
        ),
    ],
    file: Annotated[str, typer.Argument(help="A file, or hub:OWNER/NAME[:SPLIT].")],
    into: Annotated[str, typer.Option(help="Collection.")] = "main",
    column: Annotated[
        list[str] | None, typer.Option(help="For csv and parquet: FIELD=COLUMN, e.g. prompt=question.")
    ] = None,
    rater: Annotated[str | None, typer.Option(help="Whose judgements these are, where the file does not say.")] = None,
    as_json: AsJson = False,
) -> None:
    """Import a file into a collection; rows that can't be read are named and left out."""
    from feedback.errors import UserError
    from feedback.formats import import_file

    unmapped = [entry for entry in column or [] if "=" not in entry]
    if unmapped:
        raise UserError(*(f"--column {entry}: write FIELD=COLUMN, e.g. prompt=question" for entry in unmapped))
    columns = dict(entry.split("=", 1) for entry in column or [])
    result = import_file(
        current_workspace(), form, file if file.startswith("hub:") else Path(file), into, columns, rater
    )
    if as_json:
        print_json(
            {
                "rows": result.rows,
                "refused": result.refused,
                "added": result.added,
                "known": result.known,
                "rejects": result.rejects,
            }
        )
        return
    added = ", ".join(f"{count} {kind}" for kind, count in result.added.items() if count) or "nothing new"
    known = ", ".join(f"{count} {kind}" for kind, count in result.known.items() if count)
    say(f"{file}: {result.rows} rows into {into!r}: {added}" + (f" ({known} known already)" if known else ""))
    if result.refused:
        say(f"{result.refused} rows refused; which, and why, is in {result.rejects}")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the collections and what they hold."""
    from feedback.database import Database

    with Database(current_workspace().database) as database:
        collections = database.collections()
    if as_json:
        print_json(collections)
    else:
        print_table(
            ["collection", "candidates", "judgements", "demonstrations"],
            [(name, *counts.values()) for name, counts in collections.items()],
        )


@app.command()
def agreement(collection: Annotated[str, typer.Argument()], as_json: AsJson = False) -> None:
    """Say how far the raters of a collection agree: all of them (alpha), and each two (kappa)."""
    from dataclasses import asdict, replace

    from feedback.curation.agreement import (
        VERDICTS,
        fields_of,
        judges_against_people,
        of_people,
        pairs_of,
        said_by_raters,
    )
    from feedback.database import Database

    with Database(current_workspace().database) as database:
        database.require([collection])
        candidates, judgements = list(database.candidates([collection])), list(database.judgements([collection]))
    said = said_by_raters(candidates, judgements)
    fields, raters = fields_of(said), pairs_of(said)
    judges = judges_against_people(candidates, judgements)
    if judges:
        fields += [replace(f, field=f"{f.field}, people alone") for f in fields_of(of_people(said)) if f.units]
    if as_json:
        print_json(
            {
                "fields": [asdict(f) | {"reading": f.reading} for f in fields],
                "raters": [asdict(p) for p in raters],
                "judges": [asdict(judge) for judge in judges],
            }
        )
        return
    if not raters and not judges:
        say(f"collection {collection!r}: no two raters have judged the same candidate yet")
        return
    print_table(
        ["field", "n", "raters", "alpha", "95% interval", "which is"],
        [(f.field, f.units, f.raters, _share(f.alpha), _interval(f.low, f.high), f.reading) for f in fields],
        title="Krippendorff's alpha; n = what two or more raters judged, intervals resample it",
    )
    print_table(
        ["field", "rater", "and rater", "n", "agreed on", "kappa", "95% interval"],
        [
            (p.field, p.first, p.second, p.n, f"{p.agreed:.1%}", _share(p.kappa), _interval(p.low, p.high))
            for p in raters
        ],
        title="Cohen's kappa; n = what both judged",
    )
    for judge in judges:
        kappa = f"kappa {_share(judge.kappa)} ({_interval(*judge.kappa_interval or (None, None))})"
        agreed = f"agreed on {judge.agreed:.1%} ({_interval(*judge.agreed_interval)})"
        say(f"{judge.judge} against people, n = {judge.n}: {agreed}, {kappa}")
        print_table(
            ["people \\ judge", *VERDICTS],
            [(verdict, *row) for verdict, row in zip(VERDICTS, judge.cells, strict=True)],
            title="Which answer, in the order of the alphabet",
        )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"
