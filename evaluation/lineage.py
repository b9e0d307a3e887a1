"""From a label to the report it had a part in, and back, each link checked by its hash."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.results import Ancestor, Results, list_results
from feedback import versions
from feedback.database import Database
from feedback.errors import UserError
from feedback.files import hash_file
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import labelled, models, runs
from training.runs import Run

Links = dict[str, list[dict[str, Any]]]


def trace(workspace: Workspace, name: str) -> Links:
    """What a label, dataset version, run or report stands on, and what stands on it.

    Args:
        name: id of a report or run, NAME@vN, or (the beginning of) the id of a judgement.

    Returns:
        `upstream` and `downstream`, each a list of {kind, id, hash, state}; a state other than "ok" says what became
        of the thing.

    Raises:
        UserError: nothing has that id.
    """
    reports = _reports(workspace)
    if name in reports:
        upstream: dict[tuple[str, str], Ancestor] = {}
        for model in reports[name].models:
            run = _find_run(workspace, model)
            links = list(ancestors(workspace, run)) if run else _strangers(reports[name], model)
            upstream |= {(link.kind, link.id): link for link in links}
        return {"upstream": [link.model_dump() for link in upstream.values()], "downstream": []}
    if run := _find_run(workspace, name):
        return {
            "upstream": [link.model_dump() for link in list(ancestors(workspace, run))[:-1]],
            "downstream": [link.model_dump() for link in _descendants(workspace, run)],
        }
    found = [version for version in versions.all_versions(workspace) if name == version.id]
    if found:
        return {
            "upstream": [link.model_dump() for link in _labels(found[0])],
            "downstream": [link.model_dump() for link in _used_in(workspace, found[0])],
        }
    with Database(workspace.database) as database:
        stored = database.find_judgement(name) if len(name) >= 6 else None
    if stored is None:
        raise UserError(f"{name!r}: no report, run, dataset version (NAME@vN) or judgement has this id")
    downstream: list[Ancestor] = []
    for version in versions.all_versions(workspace):
        if stored.judgement.id in version.judgement_ids:
            downstream += [_version_link(version), *_used_in(workspace, version)]
    state = f"withdrawn {stored.withdrawn_at}" if stored.withdrawn_at else "ok"
    label = Ancestor(kind="judgement", id=stored.judgement.id, hash=stored.judgement.id, state=state)
    candidate = Ancestor(
        kind="candidate", id=stored.judgement.candidate_id, hash=stored.judgement.candidate_id, state="ok"
    )
    return {
        "upstream": [candidate.model_dump(), label.model_dump()],
        "downstream": [link.model_dump() for link in downstream],
    }


def ancestors(workspace: Workspace, run: Run) -> Iterator[Ancestor]:
    """Everything that a run stands on, each thing once, the labels first and the run last."""
    yield from {(link.kind, link.id): link for link in _ancestors(workspace, run)}.values()


def _ancestors(workspace: Workspace, run: Run) -> Iterator[Ancestor]:
    manifest = run.manifest
    if not manifest["parent"]:
        yield _model_link(manifest["model"])
    for run_id in _runs_before(run):
        before = _find_run(workspace, run_id)
        yield from _ancestors(workspace, before) if before else [_missing("run", run_id)]
    version = _version(workspace, manifest["dataset"]["id"])
    if labelled.is_file(manifest["dataset"]["id"]):
        yield _file_link(**manifest["dataset"])
    elif version is None:
        yield _missing("dataset", manifest["dataset"]["id"])
    else:
        yield from _labels(version)
        link = _version_link(version)
        if version.fingerprint != manifest["dataset"]["fingerprint"]:
            link = link.model_copy(update={"state": f"not the version that {run.id} was trained on"})
        yield link
    yield _run_link(run)


def _descendants(workspace: Workspace, run: Run) -> Iterator[Ancestor]:
    for child in runs.list_runs(workspace):
        if run.id in _runs_before(child):
            yield _run_link(child)
            yield from _descendants(workspace, child)
    for report_id, results in _reports(workspace).items():
        if run.id in results.models:
            yield Ancestor(kind="report", id=report_id, hash=None, state="ok")


def _runs_before(run: Run) -> list[str]:
    """Ids of the run that this one goes on from, and of its reward model."""
    links = (run.manifest.get(key) or {} for key in ("parent", "reward"))
    return [link["run_id"] for link in links if "run_id" in link]


def _used_in(workspace: Workspace, version: DatasetVersion) -> list[Ancestor]:
    links: dict[str, Ancestor] = {}
    for run in runs.list_runs(workspace):
        if run.manifest["dataset"]["fingerprint"] == version.fingerprint:
            for link in (_run_link(run), *_descendants(workspace, run)):
                links.setdefault(link.id, link)
    return list(links.values())


def _labels(version: DatasetVersion) -> list[Ancestor]:
    raters = ", ".join(f"{count} by {name} ({kind})" for name, kind, count in version.manifest["raters"])
    label = f"{version.manifest['judgements']} judgements in {', '.join(version.manifest['collections'])}"
    return [Ancestor(kind="labels", id=f"{label}: {raters}" if raters else label, hash=None, state="ok")]


def _version_link(version: DatasetVersion) -> Ancestor:
    try:
        version.verify()
        state = "ok"
    except UserError:
        state = "altered"
    return Ancestor(kind="dataset", id=version.id, hash=version.fingerprint, state=state)


def _run_link(run: Run) -> Ancestor:
    state = run.state
    if state == "finished":
        try:
            run.verify_weights()
            state = "ok"
        except UserError:
            state = "altered"
    files = run.manifest.get("weights") or {}
    weights = next((digest for name, digest in files.items() if name.endswith(".safetensors")), None)
    return Ancestor(kind="run", id=run.id, hash=weights, state=state)


def _model_link(model: dict[str, str]) -> Ancestor:
    try:
        state = "ok" if models.model_hash(model["name"]) == model["hash"] else "altered"
    except UserError:
        state = "missing"
    return Ancestor(kind="model", id=model["name"], hash=model["hash"], state=state)


def _file_link(id: str, fingerprint: str) -> Ancestor:  # noqa: A002
    path = Path(id)
    state = ("ok" if hash_file(path) == fingerprint else "altered") if path.is_file() else "missing"
    return Ancestor(kind="file", id=id, hash=fingerprint, state=state)


def _missing(kind: str, name: str) -> Ancestor:
    return Ancestor(kind=kind, id=name, hash=None, state="missing")


def _version(workspace: Workspace, reference: str) -> DatasetVersion | None:
    found = [version for version in versions.all_versions(workspace) if version.id == reference]
    return found[0] if found else None


def _find_run(workspace: Workspace, run_id: str) -> Run | None:
    return next((run for run in runs.list_runs(workspace) if run.id == run_id), None)


def _strangers(results: Results, model: str) -> list[Ancestor]:
    """What a report on a model of no run stands on: the model, as it was called there."""
    found = [link for link in results.lineage if link.kind == "model" and models.short_name(link.id) == model]
    return [_model_link({"name": link.id, "hash": str(link.hash)}) for link in found] or [_missing("run", model)]


def _reports(workspace: Workspace) -> dict[str, Results]:
    return {results.report_id: results for results in list_results(workspace.reports)}
