"""Compare: one question, the base's and the tuned model's answers side by side, and a vote that becomes feedback."""

import logging
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from evaluation.generation import MAX_NEW_TOKENS, Sampling, stream_pair
from feedback.errors import UserError
from feedback.schema import grounded_prompt, user_message
from feedback.workspace import Workspace
from training import runs
from ui import votes
from ui.backbone import Backbone
from ui.look import notice, plain
from ui.votes import Choice, Shown, Tally

if TYPE_CHECKING:
    import gradio as gr

# Far above any model's context; what is longer is refused before it is tokenized.
MAX_CHARACTERS = 200_000
NO_RUN = (
    "No finished run yet. Train one, then reload this page: `veritune train sft dataset=NAME` "
    "(`veritune data list` shows the datasets, `veritune train list` the runs)."
)
CHOICES: dict[Choice, str] = {"A": "A better", "B": "B better", "tie": "Tie", "both bad": "Both bad"}
KEYS: dict[Choice, tuple[str, str]] = {
    "A": ("vote-a", "a"),
    "B": ("vote-b", "b"),
    "tie": ("vote-tie", "t"),
    "both bad": ("vote-bad", "x"),
}


@dataclass
class Current:
    """One tab's latest question; `shown` is set once both answers are whole."""

    blind: bool
    stop: Event = field(default_factory=Event)
    shown: Shown | None = None


def build(page: "gr.Blocks", workspace: Workspace) -> None:
    """Lay out the page and connect it."""
    import gradio as gr

    backbone = Backbone()
    gr.HTML(
        "<h1>veritune · Compare</h1><p>Ask both models the same question, and say whose answer is better. "
        "Your votes are feedback for the next run.</p>",
        elem_id="brand",
    )
    empty = gr.HTML(notice(NO_RUN), visible=False)
    with gr.Column(visible=False) as desk:
        run = gr.Dropdown([], label="Tuned run", info="Its base model is the other side.", elem_id="run")
        question = gr.Textbox(
            "",
            label="Question",
            placeholder="What do you want to ask? Shift+Enter asks.",
            lines=3,
            max_lines=12,
            max_length=MAX_CHARACTERS,
            elem_id="question",
        )
        with gr.Accordion("Context (optional)", open=False):
            context = gr.Textbox(
                "",
                label="A text that the answer must keep to",
                lines=4,
                max_lines=16,
                max_length=MAX_CHARACTERS,
                elem_id="context",
            )
        with gr.Accordion("Sampling and blinding", open=False):
            blind = gr.Checkbox(True, label="Blind: sides shuffled, names shown after the vote")
            with gr.Row():
                temperature = gr.Slider(0, 2, 0, step=0.05, label="Temperature", info=_help("temperature"))
                top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top p", info=_help("top_p"))
            with gr.Row():
                new_tokens = gr.Slider(
                    1, MAX_NEW_TOKENS, 256, step=1, label="Most new tokens", info=_help("max_new_tokens")
                )
                seed = gr.Number(0, precision=0, label="Seed", info=_help("seed"))
        with gr.Row():
            ask = gr.Button("Ask both", variant="primary", scale=3, min_width=140, elem_id="ask")
            stop = gr.Button("Stop", interactive=False, min_width=90, elem_id="stop")
        status = gr.HTML(elem_id="status")
        with gr.Row(equal_height=True):
            answers = [_answer_box(letter) for letter in "AB"]
        with gr.Row(elem_id="votes"):
            buttons = {
                choice: gr.Button(_caption(choice), interactive=False, elem_id=KEYS[choice][0]) for choice in CHOICES
            }
        with gr.Accordion("Reason, better answer (optional)", open=False):
            reason = gr.Textbox(
                "", label="Why you vote so", lines=1, max_lines=4, max_length=MAX_CHARACTERS, elem_id="reason"
            )
            rewrite = gr.Textbox(
                "",
                label="A better answer",
                info="Becomes an example to imitate.",
                lines=3,
                max_length=MAX_CHARACTERS,
                elem_id="rewrite",
            )
        result = gr.HTML(elem_id="result")
    current = gr.State(None)

    def enter() -> dict[Any, Any]:
        finished = [
            run.id for run in reversed(runs.list_runs(workspace)) if run.state == "finished" and run.head == "causal-lm"
        ]
        return {
            empty: gr.update(visible=not finished),
            desk: gr.update(visible=bool(finished)),
            run: gr.update(choices=finished, value=finished[0] if finished else None),
        }

    def busy(working: bool, can_vote: bool) -> dict[Any, Any]:
        """The buttons as they are while the models answer, and when a vote is due."""
        return {
            ask: gr.update(interactive=not working),
            stop: gr.update(interactive=working, variant="stop" if working else "secondary"),
            **{
                button: gr.update(interactive=can_vote, variant="secondary", value=_caption(choice))
                for choice, button in buttons.items()
            },
        }

    def answer(
        run_id: str, text: str, context: str, blind: bool, temperature: float, top_p: float, tokens: int, seed: int
    ) -> Iterator[dict[Any, Any]]:
        latest = Current(blind)
        boxes = [gr.update(value="", label=f"Answer {letter}") for letter in "AB"]
        yield {
            **busy(True, False),
            **dict(zip(answers, boxes, strict=True)),
            current: latest,
            reason: "",
            rewrite: "",
            result: "",
            status: notice("Waiting for the model… the first question to a run waits until it is loaded."),
        }
        try:
            sampling = _sampling(temperature, top_p, tokens, seed)
            for pair in converse(workspace, backbone, latest, run_id, text, context, sampling):
                yield {**dict(zip(answers, pair, strict=True)), status: notice("Answering…")}
        except UserError as error:
            yield {**busy(False, False), status: notice("\n".join(error.lines), "problem")}
            return
        except Exception as error:
            logging.getLogger(__name__).exception("a question to %r failed", run_id)
            words = f"Failed: {' '.join(str(error).split())[:300]} (details where `veritune ui` runs)."
            yield {**busy(False, False), status: notice(words, "problem")}
            return
        if latest.shown is None:
            words = "Stopped. An answer that was cut can't be voted on; ask again for a whole one."
            yield {**busy(False, False), status: notice(words)}
            return
        words = "Which answer is better? Vote with a button, or with the keys a, b, t and x."
        if latest.shown.identical:
            words = "Both models gave the same answer: a vote is kept, but makes no pair and does not count."
        names = {} if blind else _named(answers, latest.shown)
        yield {**busy(False, True), **names, status: notice(words)}

    def vote(latest: Current | None, reason: str, rewrite: str, choice: Choice) -> dict[Any, Any]:
        if latest is None or latest.shown is None:
            return {status: notice("Nothing to vote on yet: ask both models first.", "problem")}
        votes.record(workspace, latest.shown, choice, reason, rewrite)
        base, tuned = (response.model or "" for response in latest.shown.candidate.responses)
        tally = votes.tally(workspace, base, tuned)
        words = f"Your vote is kept: {CHOICES[choice]}. Voting again on these answers changes it."
        return {
            **_named(answers, latest.shown),
            **{
                button: gr.update(variant="primary" if mine == choice else "secondary")
                for mine, button in buttons.items()
            },
            status: notice(words),
            result: outcome(latest.shown, choice, tally),
        }

    gr.on(
        [ask.click, question.submit],
        answer,
        [run, question, context, blind, temperature, top_p, new_tokens, seed],
        [*answers, *buttons.values(), ask, stop, current, reason, rewrite, status, result],
        concurrency_limit=1,
        concurrency_id="backbone",
        show_progress_on=status,
        api_visibility="private",
    )
    # The keys vote only where they don't type: leave the question once it is asked.
    question.submit(None, js="() => { document.activeElement.blur(); }")
    stop.click(_halt, current, None, queue=False, api_visibility="private")
    for choice, button in buttons.items():
        button.click(
            lambda latest, reason, rewrite, choice=choice: vote(latest, reason, rewrite, choice),
            [current, reason, rewrite],
            [*answers, *buttons.values(), status, result],
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
    page.load(enter, None, [empty, desk, run], api_visibility="private", show_progress="hidden")


def converse(
    workspace: Workspace,
    backbone: Backbone,
    latest: Current,
    run_id: str,
    text: str,
    context: str,
    sampling: Sampling,
) -> Generator[tuple[str, str], None, None]:
    """Both answers as they grow, at A and at B; `latest.shown` is set when both came to their end.

    Raises:
        UserError: nothing is asked, it is too long, or the run can't be loaded.
    """
    if not text.strip():
        raise UserError("The question is empty: write what both models should answer.")
    if len(text) + len(context) > MAX_CHARACTERS:
        raise UserError(f"Question and context have more than {MAX_CHARACTERS:,} characters: shorten them.")
    prompt, grounding = user_message(text.strip()), context.strip() or None
    order = (1, 0) if latest.blind and secrets.SystemRandom().random() < 0.5 else (0, 1)
    with backbone.hold(runs.find(workspace, run_id)) as sides:
        pair = ("", "")
        for pair in stream_pair(sides, grounded_prompt(prompt, grounding), sampling, latest.stop.is_set):
            yield pair[order[0]], pair[order[1]]
        names = (sides[0].name, sides[1].name)
    if not latest.stop.is_set():
        settings = {**sampling.model_dump(), "blind": latest.blind}
        latest.shown = votes.shown(prompt, grounding, names, pair, order, settings)


def outcome(comparison: Shown, choice: Choice, tally: Tally) -> str:
    """Which side was which, and how the tuned model fares, as HTML."""
    names = [_name(comparison, side) for side in comparison.order]
    preferred = comparison.preferred(choice)
    taken = f"You preferred the {_name(comparison, preferred)}." if isinstance(preferred, int) else ""
    lines = [
        f"<p>A was the <strong>{plain(names[0])}</strong>, B the <strong>{plain(names[1])}</strong>. {plain(taken)}</p>"
    ]
    if comparison.identical:
        lines.append("<p>Both answers are the same, so this vote makes no pair and does not count below.</p>")
    if tally.n:
        low, high = tally.interval
        said = (
            f"The {plain(_name(comparison, 1))} wins {tally.rate:.0%} of {tally.n} vote{'s' * (tally.n != 1)} against "
            f"the {plain(_name(comparison, 0))} (95% interval {low:.0%} to {high:.0%}; {tally.tuned} for, {tally.base} "
            f"against, {tally.ties} tied or both bad, which count half)."
        )
        lines.append(
            f'<p>{said}</p><div class="track" aria-hidden="true"><span class="interval" style="left:{low:.1%};'
            f'right:{1 - high:.1%}"></span><span class="even"></span><span class="point" style="left:{tally.rate:.1%}">'
            '</span></div><div class="ends" aria-hidden="true"><span>base wins</span><span>tuned wins</span></div>'
        )
    return f'<div class="rate">{"".join(lines)}</div>'


def _answer_box(letter: str) -> Any:
    import gradio as gr

    return gr.Textbox(
        label=f"Answer {letter}",
        lines=8,
        max_lines=24,
        interactive=False,
        min_width=300,
        buttons=["copy"],
        placeholder="The answer streams here.",
        elem_id=f"answer-{letter.lower()}",
        elem_classes="answer",
    )


def _named(answers: list[Any], comparison: Shown) -> dict[Any, Any]:
    """The answers' labels with the models that gave them."""
    import gradio as gr

    return {
        box: gr.update(label=f"Answer {letter} · {_name(comparison, side)}")
        for box, letter, side in zip(answers, "AB", comparison.order, strict=True)
    }


def _name(comparison: Shown, side: int) -> str:
    model = comparison.candidate.responses[side].model or ""
    return f"tuned {model}" if side else f"base {Path(model).name}"


def _caption(choice: Choice) -> str:
    return f"{CHOICES[choice]} ({KEYS[choice][1]})"


def _help(name: str) -> str:
    return str(Sampling.model_fields[name].description)


def _halt(latest: Current | None) -> None:
    if latest is not None:
        latest.stop.set()


def _sampling(temperature: float, top_p: float, tokens: int, seed: int) -> Sampling:
    try:
        return Sampling(temperature=temperature, top_p=top_p, max_new_tokens=tokens, seed=seed)
    except ValidationError as error:
        raise UserError(*(f"{e['loc'][0]} {e['input']}: {e['msg']}" for e in error.errors())) from None
