"""Send the candidates of a collection to Argilla, where people label them."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from feedback.argilla import order as orders
from feedback.argilla.connection import Connection, connect
from feedback.argilla.progress import Progress
from feedback.argilla.project import metadata_kinds, prepare_project, record_of
from feedback.argilla.records import batches, send
from feedback.database import Database
from feedback.schema import Candidate
from feedback.workspace import Workspace


@dataclass
class Pushed:
    """What became of a collection's candidates.

    Args:
        known: how many had been sent before.
        refused: why Argilla did not take a candidate, by its id.
        projects: how many candidates of this push each project took, by its name.
        order: in which raters see what waits; unjudged: candidates that come first there because no judge has compared
            their answers.
        moved: how many records that were there already have another place in it now.
        links: by the names of projects, where a rater finds them in this order if Argilla does not see to it.
    """

    sent: int = 0
    known: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    projects: dict[str, int] = field(default_factory=dict)
    order: orders.Order = "shuffled"
    unjudged: int = 0
    moved: int = 0
    links: dict[str, str] = field(default_factory=dict)


def push(
    workspace: Workspace,
    collection: str,
    say: Callable[[str], None],
    again: bool = False,
    order: orders.Order | None = None,
) -> Pushed:
    """Send what has not been sent; a second push sends nothing, an interrupted one goes on where it was.

    Args:
        say: receives progress, one line at a time.
        again: send all of it, also what somebody deleted in Argilla; answers that are there stay.
        order: in which raters are to see what waits; as before unless it is given. Where the uncertain comes first, all
            that waits gets the place that it has by what the judges say now.

    Raises:
        UserError: no such collection, no Argilla, or no judge by whom to order.
    """
    with connect(workspace, say) as argilla, Database(workspace.database) as database:
        database.require([collection])
        _warn_of_html(argilla, say)
        uncertainties = orders.settle(argilla, database, collection, order)
        by_size: dict[int, list[Candidate]] = defaultdict(list)
        for candidate in database.candidates([collection]):
            by_size[len(candidate.responses)].append(orders.scored(candidate, uncertainties))
        overlap = workspace.settings.argilla.overlap
        result = Pushed(order="shuffled" if uncertainties is None else "uncertain")
        for size, candidates in sorted(by_size.items()):
            project = prepare_project(argilla, collection, size, overlap, metadata_kinds(candidates), say)
            sent = set() if again else database.pushed(project.id)
            waiting = [candidate for candidate in candidates if candidate.id not in sent]
            result.known += len(candidates) - len(waiting)
            result.projects[project.name] = 0
            progress = Progress(len(waiting), project.name, say)
            for batch in batches(record_of(candidate, project) for candidate in waiting):
                refused = send(argilla, project.id, batch)
                taken = [record["external_id"] for record in batch if record["external_id"] not in refused]
                database.mark_pushed(project.id, taken)
                result.refused |= refused
                result.sent += len(taken)
                result.projects[project.name] += len(taken)
                progress.step(len(batch))
            if uncertainties is not None and orders.is_ordered(project):
                result.unjudged += sum(candidate.id not in uncertainties for candidate in candidates)
                result.moved += orders.reorder(argilla, project, {c.id: c for c in candidates if c.id in sent}, say)
                if link := orders.link(argilla, project):
                    result.links[project.name] = link
    return result


def _warn_of_html(argilla: Connection, say: Callable[[str], None]) -> None:
    """Argilla takes text for HTML. The workspace's own server sees to it that this does no harm; others may not."""
    import httpx

    with suppress(httpx.HTTPError):
        page = argilla.http.get(f"{argilla.address}/")
        if page.is_success and "content-security-policy" not in page.headers:
            say(
                f"warning: {argilla.address}: its page comes without a content-security-policy, so HTML in an answer "
                "can act there as the rater who looks at it; give it one, or use `veritune feedback serve`"
            )
