"""The order in which raters see what waits: each in one of their own, or first what the judges leave most open.

A project that has the metadata property UNCERTAINTY is ordered by it: the workspace's own server sees to that, and who
labels in another Argilla sorts by it. Argilla 2.8 does not save a change of a dataset's own metadata, so the property
itself is what says so.
"""

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Literal

from feedback.argilla.connection import Connection
from feedback.argilla.progress import Progress
from feedback.argilla.project import UNCERTAINTY, Project, find_projects
from feedback.argilla.records import PENDING, batches, listed, send
from feedback.curation.uncertainty import by_a_judge, uncertainty
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Candidate

Order = Literal["shuffled", "uncertain"]
# The search engine of the workspace's own server.
OURS = "sqlite"


def settle(argilla: Connection, database: Database, collection: str, wanted: Order | None) -> dict[str, float] | None:
    """What a collection is to be ordered by from now on.

    Args:
        wanted: the order; None leaves it as it is.

    Returns:
        How uncertain the judges are of each candidate that one of them has compared, by its id; None where raters have
        orders of their own.

    Raises:
        UserError: the uncertain is to come first, and there is no judge.
    """
    ordered = [project for project in find_projects(argilla, collection) if is_ordered(project)]
    if wanted == "shuffled" or not (wanted or ordered):
        for project in ordered:
            _shuffle(argilla, project)
        return None
    uncertainties = _uncertainties(database, collection)
    if wanted and not uncertainties:
        raise UserError(
            f"--order uncertain: no judge has compared the answers of collection {collection!r}; "
            f"let one do so first (`veritune feedback judge {collection} --model MODEL`)"
        )
    return uncertainties


def scored(candidate: Candidate, uncertainties: Mapping[str, float] | None) -> Candidate:
    """The candidate with its uncertainty among the metadata, if it is to be ordered and has answers to compare."""
    if uncertainties is None or len(candidate.responses) == 1:
        return candidate
    value = uncertainties.get(candidate.id, uncertainty(candidate, ()))
    return candidate.model_copy(update={"metadata": candidate.metadata | {UNCERTAINTY: value}})


def is_ordered(project: Project) -> bool:
    """Whether its raters see first what the judges leave most open."""
    return UNCERTAINTY in project.properties


def reorder(
    argilla: Connection, project: Project, candidates: Mapping[str, Candidate], say: Callable[[str], None]
) -> int:
    """Give the records that wait for an answer the uncertainty that their candidates have now; how many had another."""
    name, _ = project.properties[UNCERTAINTY]
    moved = []
    progress = Progress(len(candidates), f"{project.name}, order", say)
    for record in listed(argilla, project.id, PENDING):
        progress.step(1)
        candidate, metadata = candidates.get(record["external_id"]), record["metadata"] or {}
        if candidate and metadata.get(name) != candidate.metadata[UNCERTAINTY]:
            metadata = metadata | {name: candidate.metadata[UNCERTAINTY]}
            moved.append({"external_id": candidate.id, "metadata": metadata})
    progress = Progress(len(moved), f"{project.name}, new places", say)
    for batch in batches(moved):
        # One that is deleted meanwhile is refused: without fields it is no new record.
        send(argilla, project.id, batch)
        progress.step(len(batch))
    return len(moved)


def link(argilla: Connection, project: Project) -> str | None:
    """Where a rater sees the records of a project in order; nothing where Argilla sees to it by itself."""
    if argilla.call("GET", "status")["search_engine"].get("name") == OURS:
        return None
    sort = f"metadata.{project.properties[UNCERTAINTY][0]}.desc"
    return f"{argilla.address}/dataset/{project.id}/annotation-mode?sort={sort}"


def _uncertainties(database: Database, collection: str) -> dict[str, float]:
    found = {}
    for _, group in groupby(database.judged([collection]), key=lambda row: row[1].id):
        rows = list(group)
        if any(by_a_judge(judgement) for *_, judgement in rows):
            found[rows[0][1].id] = uncertainty(rows[0][1], (judgement for *_, judgement in rows))
    return found


def _shuffle(argilla: Connection, project: Project) -> None:
    for entry in argilla.call("GET", f"me/datasets/{project.id}/metadata-properties")["items"]:
        if entry["title"] == UNCERTAINTY:
            argilla.call("DELETE", f"metadata-properties/{entry['id']}")
