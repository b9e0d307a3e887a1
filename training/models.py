"""Loading base models and tokenizers; safetensors only, never code from a model's folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.errors import UserError
from feedback.files import content_hash, hash_file
from training import quantised
from training.recipe_base import Head, Recipe

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEMPLATES = Path(__file__).parent / "templates"


def load_tokenizer(name: str, recipe: Recipe | None = None) -> "PreTrainedTokenizerBase":
    """A tokenizer with the recipe's chat template and special tokens in place.

    Raises:
        UserError: the model is not to be had, or what the recipe names does not exist; one line for each.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"model {name!r}: its tokenizer can't be loaded ({_first_line(error)})") from None
    if recipe is None:
        return tokenizer
    mistakes = []
    if recipe.chat_template is not None:
        shipped = TEMPLATES / f"{recipe.chat_template}.jinja"
        path = shipped if shipped.is_file() else Path(recipe.chat_template)
        if path.is_file():
            tokenizer.chat_template = path.read_text()
        else:
            names = ", ".join(sorted(template.stem for template in TEMPLATES.glob("*.jinja")))
            mistakes.append(f"chat_template: {recipe.chat_template!r} is neither a file nor one of {names}")
    for key in ("pad_token", "eos_token"):
        token = getattr(recipe, key)
        if token is not None and token not in tokenizer.get_vocab():
            mistakes.append(f"{key}: {token!r} is not in the vocabulary of {name}")
        elif token is not None:
            setattr(tokenizer, key, token)
    if mistakes:
        raise UserError(*mistakes)
    return tokenizer


def tokenizer_mistakes(tokenizer: "PreTrainedTokenizerBase", name: str, head: Head = "causal-lm") -> list[str]:
    """What would keep a model from learning to answer and to stop, each with its remedy."""
    mistakes = []
    if tokenizer.cls_token_id is not None and head == "labels":
        # An encoder's, which knows no conversations and pads with a token of its own.
        return [] if tokenizer.pad_token_id is not None else [f"model {name}: its tokenizer has no pad token"]
    if not tokenizer.chat_template:
        mistakes.append(
            f"model {name}: its tokenizer has no chat template, so the form of a question and its answer is unknown; "
            "set chat_template=plain, chat_template=chatml or a Jinja file (or take the model's instruct variant)"
        )
    if tokenizer.eos_token_id is None:
        mistakes.append(f"model {name}: its tokenizer has no EOS token, so answers would not end; set eos_token=...")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        problem = "has no pad token" if tokenizer.pad_token_id is None else f"pads with its EOS {tokenizer.eos_token!r}"
        mistakes.append(
            f"model {name}: its tokenizer {problem}, which teaches models not to stop; "
            f"set pad_token={_pad_suggestion(tokenizer)}"
        )
    return mistakes


def load_config(name: str) -> Any:
    """A model's configuration.

    Raises:
        UserError: neither a model folder nor a name that the hub knows.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model {name!r}: neither a model folder nor to be had from the hub ({_first_line(error)})"
        ) from None


def context(config: Any, tokenizer: "PreTrainedTokenizerBase | None") -> int | None:
    """How many tokens a model can read, where it says so."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is not None and tokenizer is not None and tokenizer.cls_token_id is not None:
        # Some encoders keep two positions for themselves, and only their tokenizer knows.
        return min(positions, tokenizer.model_max_length)
    return positions


def load_base(
    name: str,
    precision: str = "auto",
    head: Head = "causal-lm",
    labels: Sequence[str] = (),
    quantize: str | None = None,
    device: str | None = None,
) -> "PreTrainedModel":
    """The base model on the device at hand; seed before where its head is a new one, whose weights are drawn here.

    Args:
        labels: what a head of labels tells apart, in the order of its outputs.
        quantize: nf4 for 4-bit weights.
        device: if not the one at hand.

    Raises:
        UserError: no such model, none with safetensors weights, or weights that lack a part.
    """
    import torch

    load_config(name)
    dtype = torch.bfloat16 if computes_in_bf16(precision) else torch.float32
    device = device or (f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu")
    four_bits = {"quantization_config": quantised.config(dtype), "device_map": {"": device}}
    try:
        with _quiet():
            model, found = _auto_class(head).from_pretrained(
                name,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **(four_bits if quantize == "nf4" else {}),
                **_outputs(head, labels),
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"model {name!r}: its weights can't be loaded as safetensors ({_first_line(error)})") from None
    backbone = f"{model.base_model_prefix}."
    missing = [key for key in sorted(found["missing_keys"]) if head == "causal-lm" or key.startswith(backbone)]
    if missing := [key for key in missing if ".pooler." not in key]:
        raise UserError(f"model {name!r}: its weights lack {', '.join(missing[:3])}, which would be left to chance")
    if quantize == "nf4":
        quantised.keep_as_loaded(model)
        return model
    return model.to(device)


def computes_in_bf16(precision: str) -> bool:
    """Whether forward passes run in bf16 by this `precision` on this machine."""
    import torch

    return precision == "bf16" or (precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported())


def skeleton(config: Any, head: Head = "causal-lm") -> "PreTrainedModel":
    """The model without its weights."""
    import torch

    with torch.device("meta"):
        return _auto_class(head).from_config(config, trust_remote_code=False)


def _auto_class(head: Head) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForCausalLM if head == "causal-lm" else AutoModelForSequenceClassification


def _outputs(head: Head, labels: Sequence[str]) -> dict[str, Any]:
    """What a model's configuration says of its head."""
    if head == "labels":
        return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    return {"num_labels": 1} if head == "score" else {}


@contextmanager
def _quiet() -> Iterator[None]:
    # A head that is new is what was asked for, not the mistake that transformers reports it as.
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def model_hash(name: str) -> str:
    """Names a model by its bytes, or by its commit where it comes from the hub."""
    folder = Path(name)
    if not folder.is_dir():
        return str(load_config(name)._commit_hash)
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
    return content_hash({path.name: hash_file(path) for path in files})


def short_name(name: str) -> str:
    """How a base is called wherever its folder lies: by the run that trained it, its folder's own name, or a hub's."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    of_a_run = folder.name == "model" and (folder.parent / "recipe.yaml").is_file()
    return folder.parent.name if of_a_run else folder.name


def local(tensor: "torch.Tensor") -> "torch.Tensor":
    """What this process has of a tensor that may be spread over several."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def checksums(model: "torch.nn.Module") -> dict[str, int]:
    """A checksum of the bits of every parameter, to show which of them training changed."""
    sums: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        tensors = {name: parameter} | {f"{name}.{key}": t for key, t in quantised.constants(parameter).items()}
        sums |= {key: _checksum(local(tensor)) for key, tensor in tensors.items()}
    return sums


def _checksum(tensor: "torch.Tensor") -> int:
    import torch

    bits = tensor.detach().contiguous().view(torch.uint8).flatten()
    total = 0
    # In parts: a large embedding as 64-bit integers would not fit beside the model.
    for index, part in enumerate(bits[: len(bits) // 4 * 4].view(torch.int32).split(2**22)):
        # Weighting by position makes a swap of two values visible.
        positions = torch.arange(index, index + len(part), device=part.device) % 65521 + 1
        total += int((part.long() * positions).sum())
    return total


def _pad_suggestion(tokenizer: "PreTrainedTokenizerBase") -> str:
    vocabulary = tokenizer.get_vocab()
    named = ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "[PAD]", "<|endoftext|>", "<unk>", "[UNK]")
    return next(
        (t for t in named if t in vocabulary and t != tokenizer.eos_token), "a token that answers never contain"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
