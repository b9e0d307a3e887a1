"""Both sides in one batch give what each gives alone; characters, ends, limits and seeds are kept."""

import itertools
import threading
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from evaluation.generation import Sampling, encode_prompt, sample_answers, stream_pair
from evaluation.harness import Side
from feedback.errors import UserError
from feedback.schema import Message, user_message

# peft and transformers 5 warn of their own calls of each other.

QUESTION = user_message("Was ist größer, 猫 oder 🐈?")
LONG = Sampling(max_new_tokens=60)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    """One token a byte, so that every character beyond ASCII comes in pieces."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def make_sides(tokenizer: Any, seed: int, dora: bool = False) -> tuple[Side, Side]:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        # Wide enough that answers wander instead of repeating one byte.
        initializer_range=0.5,
    )
    base = LlamaForCausalLM(config)
    targets = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, init_lora_weights=False, use_dora=dora)).eval()
    return Side("base", model, tokenizer, model.disable_adapter), Side("tuned", model, tokenizer, nullcontext)


@pytest.fixture(scope="module")
def sides(tokenizer: Any) -> tuple[Side, Side]:
    return make_sides(tokenizer, 3)


def alone(side: Side, messages: tuple[Message, ...], new_tokens: int) -> list[int]:
    """What plain `generate` gives for one side, greedily."""
    ids = torch.tensor([encode_prompt(side, messages)])
    mask = torch.ones_like(ids)
    with side.active():
        output = side.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)
    return output[0, ids.shape[1] :].tolist()


def never() -> bool:
    return False


@pytest.mark.parametrize(("seed", "dora"), [*((seed, False) for seed in range(6)), (0, True)])
def test_each_side_says_what_it_says_alone(tokenizer: Any, seed: int, dora: bool) -> None:
    sides = make_sides(tokenizer, seed, dora)
    expected = [side.tokenizer.decode(alone(side, QUESTION, 60), skip_special_tokens=True) for side in sides]
    assert expected[0] != expected[1]
    assert list(list(stream_pair(sides, QUESTION, LONG, never))[-1]) == expected


def test_prompts_of_unlike_length_share_the_batch(sides: tuple[Side, Side]) -> None:
    """Two runs may bring their own chat templates; the shorter prompt is padded on the left."""
    other = deepcopy(sides[0].tokenizer)
    other.chat_template = "Answer in one word.\n" + other.chat_template
    mixed = (Side("other", sides[0].model, other, sides[0].active), sides[1])
    expected = [side.tokenizer.decode(alone(side, QUESTION, 60), skip_special_tokens=True) for side in mixed]
    assert expected[0] != sides[0].tokenizer.decode(alone(sides[0], QUESTION, 60), skip_special_tokens=True)
    assert list(list(stream_pair(mixed, QUESTION, LONG, never))[-1]) == expected


class Dictated(torch.nn.Module):
    """Puts the model's logits where a given answer goes on, so that the stream is known byte by byte."""

    def __init__(self, side: Side, text: str) -> None:
        super().__init__()
        self.start = len(encode_prompt(side, QUESTION))
        self.tokens = [*side.tokenizer(text)["input_ids"], side.tokenizer.eos_token_id]

    def forward(self, module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        at = int(kwargs["position_ids"][0, -1]) + 1 - self.start
        output.logits[:] = 0
        output.logits[..., self.tokens[at]] = 1
        return output


def test_characters_come_whole_and_end_tokens_never(sides: tuple[Side, Side]) -> None:
    said = "ä猫🐈‍⬛!<|user|>?"
    dictated = Dictated(sides[0], said)
    hook = sides[0].model.get_base_model().register_forward_hook(dictated, with_kwargs=True)
    try:
        steps = list(stream_pair(sides, QUESTION, LONG, never))
    finally:
        hook.remove()
    shown = "ä猫🐈‍⬛!?"
    assert {step[0] for step in steps} == {shown[:n] for n in range(len(shown) + 1)}
    assert steps[-1] == (shown, shown)
    # One step a token, the end token among them, and the whole at the end.
    assert len(steps) == len(dictated.tokens) + 1


def test_a_stream_only_grows_and_hides_broken_characters(sides: tuple[Side, Side]) -> None:
    """These random models say stray bytes; one that is no character yet is held back."""
    steps = list(stream_pair(sides, QUESTION, LONG, never))
    for side in zip(*steps[:-1], strict=True):
        assert not any(text.endswith("\ufffd") for text in side)
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(side))
    assert any("\ufffd" in text for text in steps[-1]), "no stray byte was said: the test shows nothing"


def test_stop_and_a_closed_stream_end_the_work(sides: tuple[Side, Side]) -> None:
    asked: list[int] = []

    def after_three() -> bool:
        asked.append(1)
        return len(asked) >= 3

    assert len(list(stream_pair(sides, QUESTION, LONG, after_three))) == 4
    stream = stream_pair(sides, QUESTION, LONG, never)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "stream_pair"]


def test_a_fault_while_generating_reaches_the_caller(sides: tuple[Side, Side]) -> None:
    def broken() -> bool:
        raise RuntimeError("no more memory")

    with pytest.raises(RuntimeError, match="no more memory"):
        list(stream_pair(sides, QUESTION, LONG, broken))
    assert sample_answers(sides[0], [QUESTION], 1, LONG, batch_size=1), "the fault spoiled the model"


def test_seeds_and_settings_decide_what_is_sampled(sides: tuple[Side, Side]) -> None:
    def said(**settings: Any) -> tuple[str, str]:
        return list(stream_pair(sides, QUESTION, Sampling(max_new_tokens=30, **settings), never))[-1]

    before = torch.random.get_rng_state()
    warm = said(temperature=1.0, seed=1)
    assert said(temperature=1.0, seed=1) == warm
    assert torch.equal(torch.random.get_rng_state(), before)
    assert said(temperature=1.0, seed=2) != warm
    # A share so small that one token alone makes it up.
    assert said(temperature=1.0, seed=1, top_p=1e-6) == said() != warm


def test_answers_are_cut_where_the_context_ends(sides: tuple[Side, Side]) -> None:
    prompt = user_message("x" * 240)
    room = 256 - len(encode_prompt(sides[0], prompt))
    assert len(list(stream_pair(sides, prompt, LONG, never))) == room + 1
    with pytest.raises(UserError, match=r"\d{3} tokens, which leaves no room.*shorten it"):
        next(stream_pair(sides, user_message("x" * 300), LONG, never))


def test_batches_of_unlike_prompts_answer_as_each_alone(sides: tuple[Side, Side]) -> None:
    prompts = [user_message(text) for text in ("a", "Wer war das, und wann?", QUESTION[0].content, "?")]
    for side in sides:
        expected = [[side.tokenizer.decode(alone(side, p, 40), skip_special_tokens=True)] for p in prompts]
        assert sample_answers(side, prompts, 1, Sampling(max_new_tokens=40), batch_size=3) == expected


def test_several_answers_differ_and_come_back_by_seed(sides: tuple[Side, Side]) -> None:
    warm = Sampling(temperature=1.0, max_new_tokens=20, seed=5)
    answers = sample_answers(sides[1], [QUESTION, user_message("b")], 3, warm, batch_size=2)
    assert [len(row) for row in answers] == [3, 3]
    assert len({text for row in answers for text in row}) == 6
    assert sample_answers(sides[1], [QUESTION, user_message("b")], 3, warm, batch_size=2) == answers


def test_mistakes_are_told_together(sides: tuple[Side, Side]) -> None:
    with pytest.raises(UserError) as refused:
        sample_answers(sides[0], [user_message("y" * 300), QUESTION, user_message("x" * 400)], 1, LONG, batch_size=2)
    assert [line[:9] for line in refused.value.lines] == ["prompt 'y", "prompt 'x"]
    with pytest.raises(UserError, match="temperature 0"):
        sample_answers(sides[0], [QUESTION], 2, Sampling(), batch_size=2)
    bare = deepcopy(sides[0].tokenizer)
    bare.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        sample_answers(Side("bare", sides[0].model, bare, nullcontext), [QUESTION], 1, LONG, batch_size=1)
    with pytest.raises(ValidationError):
        Sampling(max_new_tokens=5000)


def test_a_pretrained_model_streams_its_own_story(shared_data: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared_data / "models" / "stories260k"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    sides = (Side("base", model, tokenizer, model.disable_adapter), Side("tuned", model, tokenizer, nullcontext))
    prompt = user_message("Once upon a time, there was")
    expected = [tokenizer.decode(alone(side, prompt, 40), skip_special_tokens=True) for side in sides]
    *_, last = stream_pair(sides, prompt, Sampling(max_new_tokens=40), never)
    assert list(last) == expected
    assert "little" in last[0]
