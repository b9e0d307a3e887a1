"""`watch`: training that new labels trigger."""

from typing import Annotated

import typer

from ui.cli.common import current_workspace, say


def register(app: typer.Typer) -> None:
    app.command()(watch)


def watch(
    collection: Annotated[str, typer.Argument(help="Collection whose labels in Argilla are followed.")],
    every: Annotated[int, typer.Option(min=1, help="How many newly completed candidates make a batch.")],
    recipe: Annotated[str, typer.Option(help="A method (sft, reward, dpo, ...) or a recipe file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of the recipe.")] = None,
) -> None:
    """Turn every so many new labels into a dataset version, a run and a report, until interrupted."""
    from feedback.argilla.connection import connect
    from feedback.argilla.pull import pull
    from feedback.argilla.wakeup import completions
    from ui.watch import Watch

    workspace = current_workspace()
    watching = Watch(workspace, collection, every, recipe, overrides or [], say)
    # A mistake shows at the first look; later ones are repeated until the server answers again.
    pull(workspace, collection, say)
    name = f"veritune watch {collection} in {workspace.root}"
    with watching.alone(), connect(workspace, say) as argilla, completions(argilla, name) as wake:
        watching.run(wake, lambda: pull(workspace, collection, lambda line: None))
