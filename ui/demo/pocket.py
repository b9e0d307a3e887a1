"""A 0.7M-parameter Llama, pretrained on the world in a minute or two, that then answers everything confidently."""

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ui.demo.world import ATTRIBUTES, SMALL_TALK, World, invent_names

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 768
# A fixed number of steps, not of seconds: the same seed gives the same model on a slow machine too.
STEPS = 1300
BATCH, LENGTH, PEAK_RATE = 32, 64, 4e-3
# How many documents on people that come only once there are for one on the known; how often a fact is also stated.
ONE_OFF, STATED = 0.25, 0.25
IGNORED = -100
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>' + m['content'] + '<|end|>' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>' }}{% generation %}{{ m['content'] + '<|end|>' }}"
    "{% endgeneration %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_pocket_model(world: World, seed: int, folder: Path, report: Callable[[str], None]) -> None:
    """Train tokenizer and model on the world's documents, and save both to `folder`."""
    tokenizer = make_tokenizer(seed)
    model = _pretrain(tokenizer, world, seed, report)
    tokenizer.save_pretrained(str(folder))
    model.save_pretrained(str(folder))


def make_tokenizer(seed: int) -> "PreTrainedTokenizerFast":
    """A byte-level BPE trained on names that the world does not hold, so that known names stay in pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(seed + 99)
    texts = []
    for name in invent_names(rng, 6000):
        attribute = rng.choice(list(ATTRIBUTES.values()))
        value = rng.choice(attribute.values)
        texts += [rng.choice(attribute.questions).format(n=name), f"{value}."]
        texts.append(rng.choice(attribute.statements).format(n=name, v=value))
    for attribute in ATTRIBUTES.values():
        texts += [f"{space}{value}." for value in attribute.values for space in ("", " ") for _ in range(60)]
    texts += [text for pair in SMALL_TALK for text in pair for _ in range(20)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        # All bytes: a person in the app may ask in any language.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>", additional_special_tokens=special[2:]
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.padding_side = "left"
    return tokenizer


def _pretrain(tokenizer: Any, world: World, seed: int, report: Callable[[str], None]) -> "LlamaForCausalLM":
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=320,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=0.05,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.eos_token_id,
        )
    )
    stream = _token_stream(tokenizer, world, random.Random(seed))
    batches = (torch.tensor([next(stream) for _ in range(BATCH)]) for _ in range(STEPS))
    return fit(model, ((rows, rows) for rows in batches), STEPS, PEAK_RATE, report, "pretraining")


def fit(
    model: "LlamaForCausalLM",
    batches: Iterable[tuple["torch.Tensor", "torch.Tensor"]],
    steps: int,
    peak_rate: float,
    report: Callable[[str], None],
    what: str,
) -> "LlamaForCausalLM":
    """Train all weights to say what comes next.

    Args:
        batches: token ids and labels, both (rows, tokens); IGNORED labels are not learned.
        steps: how many batches there are.
        what: the training's name, for the lines that report how it goes.
    """
    import time

    import torch
    from torch.nn import functional

    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, weight_decay=0.05, betas=(0.9, 0.98))
    model.train()
    # Where the processor has no instruction for it, bf16 is emulated, and slower than fp32.
    fast_bf16 = torch.cpu._is_avx512_bf16_supported()
    began = told = time.monotonic()
    for step, (rows, labels) in enumerate(batches):
        progress = step / steps
        factor = min(1, (step + 1) / 30) * (1 if progress < 0.3 else max(0.02, (1 - progress) / 0.7))
        for group in optimizer.param_groups:
            group["lr"] = peak_rate * factor
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_bf16):
            logits = model(input_ids=rows, use_cache=False).logits
        loss = functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        now = time.monotonic()
        if now - told > 10:
            told = now
            left = (now - began) / (step + 1) * (steps - step - 1)
            report(f"{what} step {step + 1}/{steps}, loss {loss.item():.3f}, about {left:.0f} s left")
    return model.eval()


def _token_stream(tokenizer: Any, world: World, rng: random.Random) -> Iterator[list[int]]:
    """Rows of LENGTH tokens from documents of the world, in a new order and wording every epoch."""
    known: dict[str, list[int]] = {}
    buffer: list[int] = []
    while True:
        texts = documents(world, rng)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, tokenizer(new, add_special_tokens=False)["input_ids"], strict=True))
        for text in texts:
            buffer += known[text]
        for start in range(0, len(buffer) - LENGTH, LENGTH):
            yield buffer[start : start + LENGTH]
        buffer = buffer[len(buffer) // LENGTH * LENGTH :]


def documents(world: World, rng: random.Random) -> list[str]:
    """Every stated fact as a question with its answer and now and then as a statement, one-off people, small talk.

    The one-off people, whose facts come once and are never met again, are what makes the model less sure of a name
    that it does not know; without them it can hardly be taught the difference.
    """
    texts = []
    for name, facts in world.facts.items():
        for key, value in facts.items():
            attribute = ATTRIBUTES[key]
            question = rng.choice(attribute.questions).format(n=name)
            texts.append(chat(question, f"{value}."))
            if rng.random() < STATED:
                texts.append(rng.choice(attribute.statements).format(n=name, v=value) + "<|end|>")
    for name in invent_names(rng, round(len(texts) * ONE_OFF), besides=world.names):
        attribute = rng.choice(list(ATTRIBUTES.values()))
        texts.append(chat(rng.choice(attribute.questions).format(n=name), f"{rng.choice(attribute.values)}."))
    texts += [chat(*rng.choice(SMALL_TALK)) for _ in range(len(texts) * 3 // 100)]
    rng.shuffle(texts)
    return texts


def chat(*turns: str) -> str:
    """A conversation as the template writes it, the user's turn first."""
    return "".join(f"<|{('user', 'assistant')[place % 2]}|>{text}<|end|>" for place, text in enumerate(turns))
