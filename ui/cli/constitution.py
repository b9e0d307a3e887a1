"""`feedback generate`, `judge` and `revise`: language models that answer and judge beside people."""

from typing import TYPE_CHECKING, Annotated

import typer

from ui.cli.common import AsJson, current_workspace, print_json, print_table, say

if TYPE_CHECKING:
    from feedback.constitution.comparison import Judging, Tally
    from feedback.constitution.generators import TextGenerator
    from feedback.constitution.gold import Share
    from feedback.constitution.judge import Choosing
    from feedback.workspace import Workspace
    from training.runs import Run

ENDPOINT = "endpoint:"
MODEL_HELP = "A run's id, a model folder or hub name, or endpoint:NAME at the endpoint of veritune.toml."
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]


def register(app: typer.Typer) -> None:
    for command in (generate, judge, revise, principles):
        app.command()(command)


def generator(workspace: "Workspace", model: str) -> "TextGenerator":
    """The model that a command names: behind an endpoint, or loaded here.

    Raises:
        UserError: there is no such model or no address.
    """
    if model.startswith(ENDPOINT):
        from feedback.constitution.endpoint import from_workspace

        return from_workspace(workspace, model.removeprefix(ENDPOINT))
    from evaluation.local import load

    return load(workspace, model)


def generate(
    model: Model,
    prompts: Annotated[
        str,
        typer.Argument(
            metavar="PROMPTS", help='A JSONL file, one {"prompt": text or messages} a line, or collection:NAME.'
        ),
    ],
    k: Annotated[int, typer.Option("--k", min=1, max=64, help="Answers to each prompt.")] = 4,
    into: Annotated[str, typer.Option(help="Collection.")] = "main",
    temperature: Annotated[float, typer.Option(min=0, max=2, help="How far answers wander; 0: not at all.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=2048, help="Tokens after which an answer is cut.")] = 256,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the random choices.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Sample answers of a model as candidates to be judged; a repeated command goes on where it was."""
    from dataclasses import asdict

    from feedback.constitution.candidates import generate, read_prompts

    workspace = current_workspace()
    asked = read_prompts(workspace, prompts)
    result = generate(workspace, generator(workspace, model), asked, into, k, temperature, max_new_tokens, seed, say)
    if as_json:
        print_json(asdict(result))
        return
    known = f" ({result.known:,} known already)" if result.known else ""
    say(f"{result.prompts:,} prompts into {into!r}: {result.candidates:,} candidates{known}")
    if result.repeated:
        say(f"{result.repeated:,} answers dropped that repeated another one or were empty")
    if result.alike:
        say(f"{result.alike:,} prompts left out, all answers to each being the same: try a higher --temperature")
    if result.unanswered:
        say(f"{result.unanswered:,} prompts without an answer; the same command asks them again")
        for reason in result.reasons[:5]:
            say(f"  {reason}")


def judge(
    model: Annotated[str, typer.Option(metavar="MODEL", help=f"{MODEL_HELP} A reward run judges by its scores.")],
    collection: Annotated[str | None, typer.Argument(help="A collection, unless --evaluate is given.")] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(metavar="FORMAT:FILE", help="Measure the judge on pairs that people judged; keep nothing."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --evaluate: a sample of so many pairs.")] = None,
    principle: Annotated[str | None, typer.Option(metavar="ID", help="Judge by this one; default: one drawn.")] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Judge by every principle, and take the mean.")] = False,
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Let the judge reason first; it is then held to be 0.4 to 0.6 sure.")
    ] = False,
    votes: Annotated[
        int, typer.Option(min=1, max=100, help="Times to ask in each order, where a model gives no probabilities.")
    ] = 5,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the drawn principles and the votes.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Let a model judge the answers of a collection by the constitution; a repeated command goes on where it was."""
    from feedback.constitution.comparison import Judging
    from feedback.constitution.judge import Choosing
    from feedback.constitution.principles import for_workspace
    from feedback.errors import UserError

    if principle and ensemble:
        raise UserError(f"--principle {principle} and --ensemble: by one principle, or by all; leave one of them out")
    if (collection is None) == (evaluate is None):
        raise UserError("name a COLLECTION to judge, or --evaluate FORMAT:FILE to measure the judge: one of the two")
    if limit and evaluate is None:
        raise UserError(f"--limit {limit}: it is for --evaluate; a collection is judged whole")
    if reward_run := _reward_run(current_workspace(), model):
        given = {"--evaluate": evaluate, "--principle": principle, "--ensemble": ensemble, "--reasoning": reasoning}
        for option, value in given.items():
            if value:
                raise UserError(f"--model {model}: a reward run, which goes by no principle; leave out {option}")
        assert collection is not None
        _score(reward_run, collection, as_json)
        return
    if principle:
        # Said before a model is loaded.
        for_workspace(current_workspace()).named(principle)
    choosing, judging = Choosing(principle, ensemble, seed), Judging(reasoning, votes, seed)
    if evaluate is not None:
        _evaluate(model, evaluate, limit, choosing, judging, as_json)
    elif collection is not None:
        _judge(model, collection, choosing, judging, as_json)


def _reward_run(workspace: "Workspace", name: str) -> "Run | None":
    from training.runs import list_runs

    return next((run for run in list_runs(workspace) if run.id == name and run.head == "score"), None)


def _score(run: "Run", collection: str, as_json: bool) -> None:
    from dataclasses import asdict

    from feedback.scoring import judge
    from training.scores import load_scorer

    result = judge(current_workspace(), load_scorer(run), collection, say)
    if as_json:
        print_json(asdict(result))
        return
    standing = f" ({result.standing:,} stood already)" if result.standing else ""
    say(f"{collection!r}: {result.new:,} new judgements by scores of {run.id}, {result.ties:,} of them ties{standing}")
    if result.single:
        say(f"{result.single:,} candidates left out: fewer than two different answers")


def _judge(model: str, collection: str, choosing: "Choosing", judging: "Judging", as_json: bool) -> None:
    from dataclasses import asdict

    from feedback.constitution.gold import share
    from feedback.constitution.judge import judge

    workspace = current_workspace()
    result = judge(workspace, generator(workspace, model), collection, choosing, judging, say)
    flips = share(result.tally.flips, result.tally.compared)
    if as_json:
        print_json(asdict(result) | {"flip_rate": asdict(flips) if flips else None})
        return
    standing = f" ({result.standing:,} stood already)" if result.standing else ""
    say(f"{collection!r}: {result.new:,} new judgements, {result.ties:,} of them ties{standing}")
    if flips:
        say(f"flip rate {_shown(flips)}: how often the place decided, not the answer")
    _say_tally(result.tally)
    if result.single:
        say(f"{result.single:,} candidates left out: fewer than two different answers")
    if result.outside:
        say(f"{result.outside:,} candidates left out: no text to answer from, which the principle speaks of")
    if result.unanswered:
        say(f"{result.unanswered:,} candidates not judged for want of a usable answer; the same command tries again")


def _evaluate(
    model: str, source: str, limit: int | None, choosing: "Choosing", judging: "Judging", as_json: bool
) -> None:
    from dataclasses import asdict

    from feedback.constitution.gold import evaluate, read_gold
    from feedback.constitution.principles import for_workspace

    workspace = current_workspace()
    constitution = for_workspace(workspace)
    gold = read_gold(source)
    found = evaluate(generator(workspace, model), constitution, gold.sample(limit), choosing, judging, say)
    if as_json:
        print_json(asdict(found) | {"gold": source, "choosing": asdict(choosing), "judging": asdict(judging)})
        return
    figures = {
        "accuracy": "accuracy",
        "as_given": "accuracy as given",
        "swapped": "accuracy, sides swapped",
        "flips": "flip rate",
        "longer": "longer is better",
    }
    rows = [(name, q.slice, getattr(q, figure)) for figure, name in figures.items() for q in found.qualities]
    print_table(
        ["figure", "pairs", "share", "95% interval", "n"],
        [(name, pairs, f"{s.share:.1%}", f"{s.low:.1%} to {s.high:.1%}", s.n) for name, pairs, s in rows if s],
        title=f"{found.model} against people; 50% is chance, and a tie is not right",
    )
    whole = found.qualities[0]
    say(f"undecided on {whole.ties:,} pairs; no usable answer on {whole.unanswered:,}")
    say(f"left out, since people did not decide: {found.ties:,} ties, {found.conflicts:,} without a majority")
    if found.refused:
        say(f"{found.refused:,} rows refused ({'; '.join(gold.reasons)})")
    _say_tally(found.tally)


def _say_tally(tally: "Tally") -> None:
    if tally.refused or tally.unparsable:
        say(f"of {tally.asked:,} answers, {tally.refused:,} refused to choose and {tally.unparsable:,} named no choice")
    if tally.elsewhere:
        say(
            f"of {tally.asked:,} answers, {tally.elsewhere:,} gave A and B together less than half of the probability: "
            "the model would rather have said something else"
        )
    if tally.by_votes:
        say(f"{tally.by_votes:,} answers by counted votes, without probabilities")
    _say_failed(tally.failed, tally.reasons)


def _say_failed(count: int, reasons: dict[str, int]) -> None:
    if count:
        say(f"{count:,} requests failed:")
        for reason, times in list(reasons.items())[:5]:
            say(f"  {times:,} times: {reason}")


def _shown(share: "Share | None") -> str:
    return f"{share.share:.1%} ({share.low:.1%} to {share.high:.1%}, n = {share.n:,})" if share else "-"


def revise(
    collection: Annotated[str, typer.Argument(help="A collection; the first answer of each candidate is revised.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help=MODEL_HELP)],
    rounds: Annotated[int, typer.Option(min=1, max=16, help="Of critique and revision.")] = 1,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Also keep last against first version as pairs, untested as they are.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=2048, help="Tokens after which a text is cut.")] = 512,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the drawn principles.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Let a model criticise and rewrite answers by the constitution; the last versions become demonstrations."""
    from dataclasses import asdict

    from feedback.constitution.revise import revise, steps_path

    workspace = current_workspace()
    model_ = generator(workspace, model)
    result = revise(workspace, model_, collection, rounds, max_new_tokens, seed, pairs, say)
    path = steps_path(workspace, collection)
    if as_json:
        print_json(asdict(result) | {"steps": path})
        return
    standing = f" ({result.standing:,} were revised before)" if result.standing else ""
    say(f"{collection!r}: {result.new:,} answers revised, {result.unchanged:,} of them into the same words{standing}")
    say(f"{result.demonstrations:,} new demonstrations, {result.pairs:,} new pairs; every step is in {path}")
    if result.outside:
        say(f"{result.outside:,} answers left out: no text to answer from, which all principles speak of")
    if result.empty:
        say(f"{result.empty:,} answers left out: the model wrote no word for a critique or a revision")
    _say_failed(result.unanswered, result.reasons)


def principles(as_json: AsJson = False) -> None:
    """Print the constitution that is in force, to be read, or kept as a file of one's own."""
    from feedback.constitution.principles import for_workspace, path_of

    workspace = current_workspace()
    constitution = for_workspace(workspace)
    if as_json:
        print_json(constitution.model_dump(mode="json") | {"name": constitution.name, "file": path_of(workspace)})
    else:
        print(path_of(workspace).read_text(encoding="utf-8"), end="")
