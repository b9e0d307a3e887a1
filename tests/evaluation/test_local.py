"""A local model answers in batches as it does alone, its option probabilities are exact, and nothing is done twice."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.generation import encode_prompt
from evaluation.harness import Side
from evaluation.local import LocalModel, load
from feedback.constitution.generators import Answer, Request
from feedback.errors import UserError
from feedback.schema import Message, user_message
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training.launch import train

OPTIONS = ("A", "B", "Both are bad", "Bo")


def quiet(line: str) -> None:
    pass


def ask(model: LocalModel, requests: Sequence[Request], say: Callable[[str], None] = quiet) -> list[Answer]:
    answered = list(model.answer(requests, say))
    found = dict(answered)
    assert len(found) == len(answered) == len(requests)
    return [found[place] for place in range(len(requests))]


def judged(text: str) -> Request:
    return Request((Message(role="system", content="Judge."), *user_message(text)), max_tokens=4, options=OPTIONS)


def alone(side: Side, request: Request) -> list[float]:
    """Log-probability of each option, one at a time, without padding."""
    prompt = encode_prompt(side, request.messages)
    found = []
    for option in request.options:
        ids = side.tokenizer(option, add_special_tokens=False)["input_ids"]
        with side.active(), torch.no_grad():
            logits = side.model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        found.append(logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None]).sum().item())
    return found


@pytest.fixture
def model(workspace: Workspace, tiny_model: Path) -> LocalModel:
    return load(workspace, str(tiny_model))


def test_option_probabilities_are_exact_in_a_batch_of_unlike_prompts(model: LocalModel) -> None:
    requests = [judged(text) for text in ("A or B?", "Which of these two is the better one?", "?", "ä猫")]
    model.batch_size = 16
    for answer, request in zip(ask(model, requests), requests, strict=True):
        assert answer.options == pytest.approx(alone(model.side, request), abs=1e-4)
        assert answer.texts == ()


def test_options_that_differ_in_their_last_token_take_one_pass(model: LocalModel) -> None:
    passes: list[tuple[int, ...]] = []
    hook = model.side.model.register_forward_hook(
        lambda module, args, kwargs, output: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    request = Request(user_message("A or B?"), max_tokens=1, options=("A", "B"))
    ask(model, [request])
    hook.remove()
    assert passes == [(1, len(encode_prompt(model.side, request.messages)))]


def test_texts_in_a_batch_are_those_of_each_alone(model: LocalModel, workspace: Workspace) -> None:
    requests = [Request(user_message(text), max_tokens=10 + n % 2) for n, text in enumerate(("a", "Who was it?", "?"))]
    answers = ask(model, requests)
    for answer, request in zip(answers, requests, strict=True):
        ids = torch.tensor([encode_prompt(model.side, request.messages)])
        new = model.side.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_tokens, do_sample=False
        )[0, ids.shape[1] :]
        assert answer.texts == (model.side.tokenizer.decode(new, skip_special_tokens=True),)
        assert answer.tokens >= ids.shape[1]


def test_nothing_is_worked_out_twice_and_a_resumed_job_ends_as_an_uninterrupted_one(
    model: LocalModel, tmp_path: Path
) -> None:
    def job(cache: str) -> LocalModel:
        return LocalModel(model.side, model.identity, tmp_path / cache, batch_size=4)

    requests = [Request(user_message(f"{'x' * n}?"), max_tokens=8, temperature=1.0, n=2, seed=3) for n in range(9)]
    whole = ask(job("whole"), [*requests, judged("?")])
    assert len({text for answer in whole for text in answer.texts}) == 18
    interrupted = job("interrupted").answer([*requests, judged("?")], quiet)
    before = dict(next(interrupted) for _ in range(5))
    interrupted.close()
    after = ask(job("interrupted"), [*requests, judged("?")])
    assert all(after[place].cached for place in before)
    assert not all(answer.cached for answer in after)
    assert [(a.texts, a.options) for a in after] == [(a.texts, a.options) for a in whole]
    # The same question twice in one job, and the seed.
    again = ask(job("whole"), [requests[0], requests[0], Request(requests[0].messages, 8, 1.0, 2, seed=4)])
    assert again[0] == again[1]
    assert again[0].cached
    assert again[2].texts != again[0].texts


def test_one_prompt_too_long_does_not_stop_the_others(model: LocalModel) -> None:
    requests = [Request(user_message("y" * 300), max_tokens=5), Request(user_message("a"), max_tokens=5)]
    refused, answered = ask(model, requests)
    assert "leaves no room for an answer" in str(refused.error)
    assert answered.error is None
    assert answered.texts


def test_what_no_request_can_change_is_said_at_once(model: LocalModel, tmp_path: Path, workspace: Workspace) -> None:
    bare = deepcopy(model.side.tokenizer)
    bare.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        LocalModel(Side("bare", model.side.model, bare, nullcontext), "bare", tmp_path)
    with pytest.raises(UserError, match="temperature 0"):
        ask(model, [Request(user_message("a"), max_tokens=5, n=2)])
    with pytest.raises(UserError, match="tokenizer can't be loaded"):
        load(workspace, "no-such/model")


def test_progress_is_told_with_rate_and_estimate(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedback.argilla.progress.SECONDS_BETWEEN_LINES", 0)
    said: list[str] = []
    model.batch_size = 1
    ask(model, [Request(user_message(text), max_tokens=3) for text in "abc"], said.append)
    assert said[0].startswith("tiny: 1 of 3 (")


def test_a_run_answers_with_its_adapter(workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path) -> None:
    keys = ["dataset=sums", f"model={tiny_model}", "max_steps=8", "learning_rate=2e-2"]
    run = train(workspace, "sft", keys, quiet)
    base, tuned = load(workspace, str(tiny_model)), load(workspace, run.id)
    assert (base.name, tuned.name) == ("tiny", run.id)
    request = judged("1 + 1?")
    (of_base,), (of_tuned,) = ask(base, [request]), ask(tuned, [request])
    assert of_tuned.options == pytest.approx(alone(tuned.side, request), abs=1e-4)
    assert of_base.options != pytest.approx(of_tuned.options, abs=1e-2)
    assert not of_tuned.cached


def test_a_pretrained_model_knows_its_own_words(shared_data: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared_data / "models" / "stories260k"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    side = Side("stories", AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer, nullcontext)
    model = LocalModel(side, "stories", tmp_path)
    (answer,) = ask(model, [Request(user_message("Once upon a"), max_tokens=1, options=(" time", " table"))])
    assert answer.options is not None
    assert answer.options[0] > answer.options[1] + 3
