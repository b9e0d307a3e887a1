"""One row a prompt: the figures of lm-eval's own model, for fewer forward passes and far fewer tokens."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.shared_prompts import SharedPrompts
from feedback.errors import UserError

Scored = list[tuple[tuple[str, str], list[int], list[int]]]


@pytest.fixture(params=["base", "adapter"])
def models(request: pytest.FixtureRequest, tiny_model: Path) -> tuple[SharedPrompts, HFLM]:
    """Ours and lm-eval's on one model, without rounding to tell them apart."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()
    if request.param == "adapter":
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"])).double().eval()
        for name, value in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value)
    keys = {"pretrained": model, "tokenizer": AutoTokenizer.from_pretrained(tiny_model), "batch_size": 3}
    return SharedPrompts(**keys), HFLM(**keys)


def requests(rng: random.Random, beginning: int, prompts: int, longest: int) -> Scored:
    """Prompts of 1 token and more behind a common beginning, each with 1 to 5 answers of 1 token and more."""
    first, found = [rng.randrange(5, 200) for _ in range(beginning)], []
    for number in range(prompts):
        prompt = first + [rng.randrange(5, 200) for _ in range(rng.randint(1, longest))]
        for _ in range(rng.randint(1, 5)):
            answer = [rng.randrange(5, 200) for _ in range(rng.randint(1, 7))]
            found.append(((str(number), ""), prompt, answer))
    rng.shuffle(found)
    return found


@pytest.mark.parametrize(("beginning", "longest"), [(0, 30), (40, 9), (250, 20)], ids="alone shared cut".split())
def test_log_likelihoods_are_lm_evals(models: tuple[SharedPrompts, HFLM], beginning: int, longest: int) -> None:
    asked = requests(random.Random(beginning), beginning, 10, longest)
    # The answer that the model itself would give is told apart, too.
    greedy = models[1].model(torch.tensor([asked[0][1][-250:]])).logits[0, -1].argmax().item()
    asked.append((("0", "greedy"), asked[0][1], [greedy]))
    ours, theirs = (model._loglikelihood_tokens(asked, disable_tqdm=True) for model in models)
    assert [logprob for logprob, _ in ours] == pytest.approx([logprob for logprob, _ in theirs], abs=1e-9)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert ours[-1][1] is True


def test_what_is_shared_is_read_once(models: tuple[SharedPrompts, HFLM]) -> None:
    asked = requests(random.Random(0), 100, 6, 5)
    read = []
    for model in models:
        count = 0

        def note(_: Any, args: Any, kwargs: Any) -> None:
            nonlocal count
            count += (kwargs.get("input_ids") if kwargs.get("input_ids") is not None else args[0]).numel()

        handle = model.model.register_forward_pre_hook(note, with_kwargs=True)
        model._loglikelihood_tokens(asked, disable_tqdm=True)
        handle.remove()
        read.append(count)
    assert read[0] < read[1] / 4


def test_attention_that_no_mask_gives_is_left_to_lm_eval(models: tuple[SharedPrompts, HFLM]) -> None:
    asked = requests(random.Random(1), 20, 4, 5)
    config = models[0].model.config
    assert models[0]._sees_by_mask()
    config.sliding_window = 8
    try:
        assert not models[0]._sees_by_mask()
        ours, theirs = (model._loglikelihood_tokens(asked, disable_tqdm=True) for model in models)
    finally:
        config.sliding_window = None
    assert ours == theirs


def test_an_answer_longer_than_the_context_is_a_line(models: tuple[SharedPrompts, HFLM]) -> None:
    with pytest.raises(UserError, match=r"answer 'x'\.\.\.: 300 tokens, more than the 256 that the model can read"):
        models[0]._loglikelihood_tokens([(("", "x"), [5], [6] * 300)])
