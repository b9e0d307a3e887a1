"""`veritune feedback`, the labelling: the workspace's server, what goes to it and comes from it, and who labels."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ui.cli.common import AsJson, current_workspace, print_json, print_table, say

Collection = Annotated[str, typer.Argument(help="A collection.")]
raters = typer.Typer(help="Who may label.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    for command in (serve, status, stop, push, pull, backup, restore):
        app.command()(command)
    app.add_typer(raters, name="raters")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback others can reach it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 6900,
) -> None:
    """Start the labelling server (Argilla); it runs on until `veritune feedback stop`."""
    from feedback.argilla.connection import named_address
    from feedback.argilla.server import control
    from feedback.argilla.server.address import is_loopback

    workspace = current_workspace()
    before = control.status(workspace)
    server = control.start(workspace, host, port, say)
    say(f"labelling server: {server.url}" + (" (it runs already)" if before.ready else ""))
    say(f"user {server.username}, password in {server.credentials}")
    if other := named_address(workspace):
        say(f"note: another Argilla is named in veritune.toml or the environment; push and pull go there, to {other}")
    if server.host and not is_loopback(server.host):
        say(
            f"--host {server.host}: plain HTTP, so who can read the network between reads names, passwords and all "
            "records; use it in a network that you trust, or behind a proxy with TLS"
        )


def status(as_json: AsJson = False) -> None:
    """Say whether the labelling server runs, and where."""
    from feedback.argilla.server import control

    found = control.status(current_workspace())
    state = "ready" if found.ready else "running, but gives no answer" if found.running else "not running"
    if as_json:
        print_json({"state": state, **vars(found)})
    else:
        rows = {"state": state, "address": found.url, "listens on": found.host, "user": found.username}
        files = {"password in": found.credentials, "log": found.log}
        rows |= {"process": str(found.pid or "")} | {name: str(file) for name, file in files.items() if file.exists()}
        print_table(["labelling server", ""], [(name, value) for name, value in rows.items() if value])


def stop() -> None:
    """Stop the labelling server; what was labelled stays."""
    from feedback.argilla.server import control

    say("the labelling server has ended" if control.stop(current_workspace()) else "the labelling server does not run")


def push(
    collection: Collection,
    again: Annotated[bool, typer.Option("--again", help="Send all of it, also what was deleted in Argilla.")] = False,
    order: Annotated[
        Literal["shuffled", "uncertain"] | None,
        typer.Option(
            help="uncertain: first what judges are least sure of; shuffled (at first): each in an order of their own."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send the candidates of a collection to Argilla, for people to label."""
    from feedback.argilla.push import push

    pushed = push(current_workspace(), collection, say, again, order)
    if as_json:
        print_json(vars(pushed))
        return
    for name, count in pushed.projects.items():
        if count:
            say(f"project {name!r}: {count:,} records sent")
    if pushed.known:
        say(f"{pushed.known:,} were sent before" + ("" if pushed.sent else "; nothing is new"))
    if pushed.order == "uncertain":
        say(f"raters see first what the judges are least sure of; {pushed.moved:,} waiting records moved")
    if pushed.unjudged:
        say(f"{pushed.unjudged:,} candidates come before all others, for no judge has compared their answers")
    for name, link in pushed.links.items():
        say(f"project {name!r}: this Argilla does not order by itself; for that order, raters open {link}")
    for candidate_id, reason in pushed.refused.items():
        say(f"candidate {candidate_id[:12]} was not taken: {reason}")


def pull(collection: Collection, as_json: AsJson = False) -> None:
    """Bring what raters said in Argilla into a collection; what they changed or deleted is followed."""
    from feedback.argilla.pull import pull

    pulled = pull(current_workspace(), collection, say)
    if as_json:
        print_json(vars(pulled))
        return
    there = ", ".join(f"{count:,} {status}" for status, count in pulled.statuses.items())
    say(f"{collection!r}: {pulled.new:,} new, {pulled.changed:,} changed, {pulled.withdrawn:,} withdrawn ({there})")
    if pulled.foreign:
        say(f"{pulled.foreign:,} answered records in Argilla are not of this collection and were left alone")


@raters.command("add")
def add_rater(
    name: Annotated[str, typer.Argument(help="The name to sign in with.")],
    kind: Annotated[
        Literal["human", "script"] | None, typer.Option(help="A script's name is given the prefix script-.")
    ] = None,
    new_password: Annotated[
        bool, typer.Option("--new-password", help="Give an account that is there a new password.")
    ] = False,
) -> None:
    """Let somebody label; the password is printed once, and only here."""
    from feedback.argilla.raters import add_rater

    added = add_rater(current_workspace(), name, kind, new_password, say)
    if added.password:
        say(f"rater {added.username} may label; the password, which is shown this once:")
        print(added.password)
    else:
        say(f"rater {added.username} had an account, and may label here now; the password is what it was")


@raters.command("list")
def list_raters(as_json: AsJson = False) -> None:
    """List who may label or has labelled, and how much."""
    from feedback.argilla.raters import list_raters

    found = list_raters(current_workspace(), say)
    if as_json:
        print_json([vars(rater) for rater in found])
    else:
        print_table(
            ["rater", "kind", "may label", "submitted", "draft", "discarded"],
            [(r.username, r.kind, "yes" if r.labels else "no", r.submitted, r.draft, r.discarded) for r in found],
        )


@raters.command("remove")
def remove_rater(name: Annotated[str, typer.Argument(help="A rater.")]) -> None:
    """Let somebody label no longer; the answers stay."""
    from feedback.argilla.raters import remove_rater

    remove_rater(current_workspace(), name, say)
    say(f"rater {name} sees no project any more; the answers stay, in Argilla and in the collections")


def backup(
    file: Annotated[Path | None, typer.Argument(help="Default: backups/labels-TIME.jsonl.gz in the workspace.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write all that is in the labelling projects to one file, each answer with its rater and status."""
    from feedback.argilla.backup import backup

    made = backup(current_workspace(), file, say)
    if as_json:
        print_json(vars(made))
    else:
        say(f"{made.path}: {made.projects} projects, {made.records:,} records, {made.responses:,} responses")


def restore(file: Annotated[Path, typer.Argument(help="A backup.")], as_json: AsJson = False) -> None:
    """Bring a backup into Argilla; what is there stays, what is missing is added."""
    from feedback.argilla.backup import restore

    done = restore(current_workspace(), file, say)
    if as_json:
        print_json(vars(done))
        return
    say(f"added: {done.projects} projects, {done.records:,} records, {done.responses:,} responses")
    if done.raters:
        say(
            f"new accounts: {', '.join(done.raters)}; "
            "`veritune feedback raters add NAME --new-password` gives one a password"
        )
    for record_id, reason in done.refused.items():
        say(f"record {record_id[:12]} was not taken: {reason}")
