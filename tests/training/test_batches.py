"""Token ids: the loss is on the answer and its EOS, and the prompt is what it is at inference."""

from pathlib import Path

import pytest

from feedback.errors import UserError
from training import models
from training.batches import IGNORED, demonstration_rows, encode, pair_rows, show

PROMPT = [{"role": "user", "content": "2 + 2?"}]


def test_the_loss_sees_the_answer_and_its_eos_and_nothing_else(tiny_model: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_model))
    rows, _ = demonstration_rows(tokenizer, [{"prompt": PROMPT, "completion": "four"}], 100)
    ids, labels = rows[0]["input_ids"], rows[0]["labels"]
    supervised = [i for i, label in zip(ids, labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(supervised) == "four<|end|>"
    assert supervised[-1] == tokenizer.eos_token_id
    assert ids[: len(ids) - len(supervised)] == tokenizer.apply_chat_template(
        PROMPT, add_generation_prompt=True, return_dict=False
    )
    assert show(tokenizer, rows[0]) == "<|user|>2 + 2?<|end|><|assistant|>⟦four<|end|>⟧"


def test_what_follows_the_eos_is_cut_off(tiny_model: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_model))
    tokenizer.chat_template = tokenizer.chat_template.replace("'<|end|>' }}{% endfor", "'<|end|>\\n' }}{% endfor")
    _, completion = encode(tokenizer, PROMPT, "four")
    assert tokenizer.decode(completion) == "four<|end|>"


def test_a_template_without_the_eos_is_refused(tiny_model: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_model))
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", ".")
    with pytest.raises(
        UserError, match=r"does not hold the tokenizer's EOS '<\|end\|>'.*set eos_token or chat_template"
    ):
        encode(tokenizer, PROMPT, "four")


def test_a_template_that_renders_the_prompt_differently_is_refused(tiny_model: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_model))
    tokenizer.chat_template = "{{ messages | length }}" + tokenizer.chat_template
    with pytest.raises(UserError, match="renders the prompt differently"):
        encode(tokenizer, PROMPT, "four")


def test_a_prompt_that_merges_with_its_answer_keeps_its_tokens(shared_data: Path) -> None:
    tokenizer = models.load_tokenizer(str(shared_data / "models" / "stories260k"))
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
    )
    prompt = [{"role": "user", "content": "Once upon a ti"}]
    asked = tokenizer("Once upon a ti", add_special_tokens=False)["input_ids"]
    merged = tokenizer("Once upon a time", add_special_tokens=False)["input_ids"]
    assert merged[: len(asked)] != asked
    prompt_ids, completion_ids = encode(tokenizer, prompt, "me")
    assert prompt_ids == asked
    assert completion_ids[-1] == tokenizer.eos_token_id


def test_rows_are_cut_at_the_limit_and_counted(tiny_model: Path) -> None:
    tokenizer = models.load_tokenizer(str(tiny_model))
    prompt_length = len(encode(tokenizer, PROMPT, "x")[0])
    rows = [
        {"prompt": PROMPT, "chosen": "four", "rejected": "a very long answer indeed", "probability": 0.75},
        {"prompt": [{"role": "user", "content": "long " * 50}], "chosen": "a", "rejected": "b", "probability": 1.0},
    ]
    encoded, lengths = pair_rows(tokenizer, rows, prompt_length + 6)
    assert len(encoded) == 1
    assert (lengths.rows, lengths.truncated, lengths.dropped) == (2, 1, 1)
    assert tokenizer.decode(encoded[0]["chosen_ids"]) == "four<|end|>"
    assert len(encoded[0]["rejected_ids"]) == 6
    assert encoded[0]["probability"] == 0.75
