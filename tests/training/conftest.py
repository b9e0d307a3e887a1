"""Models beside the decoder that all tests have: an encoder, and a decoder that can be moved far."""

from pathlib import Path

import pytest


@pytest.fixture
def opinionated_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with larger embeddings, so that it gives some tokens much more often than others."""
    import torch

    from training import models

    model, tokenizer = models.load_base(str(tiny_model)), models.load_tokenizer(str(tiny_model))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3)
    model.save_pretrained(str(tmp_path / "opinionated"))
    tokenizer.save_pretrained(str(tmp_path / "opinionated"))
    return tmp_path / "opinionated"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("models") / "bert")


def make_tiny_bert(folder: Path) -> Path:
    """A BERT of random weights that reads letters."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789?.+"]
    words = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=66,
    )
    tokenizer.save_pretrained(str(folder))
    BertModel(config).save_pretrained(str(folder))
    return folder
