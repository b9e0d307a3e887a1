"""Claims against a corpus: passages are found by their words, verdicts come from entailment."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from evaluation.hallucination.claims import Corpus, check_claims, read_corpus
from evaluation.hallucination.entailment import CrossEncoder, Verdict
from evaluation.hallucination.scores import of_claims
from feedback.errors import UserError

PASSAGES = [
    "The lighthouse of Dunmere was built in 1882 by Ada Kerr.",
    "Oakhurst holds a fair in June, with a race of otters.",
    "The mill of Garth burned down twice.",
    "Ada Kerr died in Penrow.",
]


def by_years(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """Stands in for a model: a passage about the same thing supports the same year and contradicts another."""
    verdicts = []
    for premise, hypothesis in pairs:
        years = [re.findall(r"\d{4}", text) for text in (premise, hypothesis)]
        if "lighthouse" not in premise or not years[1]:
            verdicts.append(Verdict(0.1, 0.8, 0.1))
        else:
            verdicts.append(Verdict(0.9, 0.05, 0.05) if years[0] == years[1] else Verdict(0.05, 0.05, 0.9))
    return verdicts


def test_claims_are_supported_contradicted_or_not_found() -> None:
    answer = "The lighthouse of Dunmere was built in 1882. The lighthouse is from 1900. Zebras juggle."
    claims = check_claims(answer, Corpus(PASSAGES), by_years)
    assert [claim.support for claim in claims] == ["supported", "contradicted", "not found"]
    assert [claim.passage for claim in claims] == [PASSAGES[0], PASSAGES[0], None]
    assert claims[0].probability == pytest.approx(0.9)
    assert [answer[c.sentence.start : c.sentence.end] for c in claims] == [c.sentence.text for c in claims]
    assert check_claims("  ", Corpus(PASSAGES), by_years) == []


def test_a_claim_is_read_after_its_question_and_declining_claims_nothing() -> None:
    asked: list[str] = []

    def spy(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        asked.extend(hypothesis for _, hypothesis in pairs)
        return by_years(pairs)

    (claim,) = check_claims("In 1882.", Corpus(PASSAGES), spy, "When was the lighthouse of Dunmere built?")
    assert set(asked) == {"When was the lighthouse of Dunmere built? In 1882."}
    assert (claim.support, claim.sentence.text) == ("supported", "In 1882.")
    assert of_claims([claim]) == {"unsupported": 0, "contradicted": 0}
    wrong = check_claims("In 1900. In 1882.", Corpus(PASSAGES), spy, "When was the lighthouse of Dunmere built?")
    assert of_claims(wrong) == {"unsupported": 0.5, "contradicted": 0.5}
    assert check_claims("I don't know.", Corpus(PASSAGES), spy) == []
    assert of_claims([]) == {"unsupported": 0, "contradicted": 0}


def test_the_passage_that_shares_most_comes_first_and_none_that_shares_nothing() -> None:
    (found, nothing) = Corpus(PASSAGES).find(["Who was Ada Kerr of Penrow?", "xylophone"], k=3)
    assert found[0] == PASSAGES[3]
    assert PASSAGES[2] not in found
    assert nothing == []


def test_a_corpus_is_read_from_text_and_from_lines(tmp_path: Path) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("first\npassage\n\n\nsecond passage\n")
    assert read_corpus(text).passages == ["first passage", "second passage"]
    lines = tmp_path / "corpus.jsonl"
    lines.write_text('{"text": "first"}\n\n{"text": "second"}\n')
    assert read_corpus(lines).passages == ["first", "second"]
    lines.write_text('{"text": "first"}\n{"txt": 1}\nno json\n')
    with pytest.raises(UserError) as caught:
        read_corpus(lines)
    assert [line.split(":")[0] for line in caught.value.lines] == [f"corpus {lines}, line {n}" for n in (2, 3)]
    with pytest.raises(UserError, match="can't be read"):
        read_corpus(tmp_path / "absent.txt")
    with pytest.raises(UserError, match="holds no passage"):
        Corpus([])


def make_classifier(folder: Path, labels: list[str]) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *"##a ##b ##c".split()]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(str(folder))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    BertForSequenceClassification(config).save_pretrained(str(folder))
    return folder


def test_a_cross_encoder_gives_the_models_own_probabilities_in_order(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = make_classifier(tmp_path / "nli", ["CONTRADICTION", "ENTAILMENT", "NEUTRAL"])
    pairs = [("a b c", "d"), ("a", "b c d e f"), ("x " * 100, "y"), ("a", "a")]
    verdicts = CrossEncoder(str(folder), batch_size=2)(pairs)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
    for (premise, hypothesis), verdict in zip(pairs, verdicts, strict=True):
        encoded = tokenizer(premise, hypothesis, truncation="only_first", return_tensors="pt")
        with torch.no_grad():
            contradicts, entails, neutral = model(**encoded).logits[0].softmax(-1).tolist()
        expected = (entails, neutral, contradicts)
        assert (verdict.entails, verdict.neutral, verdict.contradicts) == pytest.approx(expected, abs=1e-5)


def test_a_hypothesis_too_long_for_the_model_is_cut_and_no_fault(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "nli", ["entailment", "neutral", "contradiction"])
    (verdict,) = CrossEncoder(str(folder))([("a b", "c " * 100)])
    assert sum(vars(verdict).values()) == pytest.approx(1)


def test_a_model_that_is_none_of_entailment_is_refused(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "other", ["positive", "negative"])
    with pytest.raises(UserError, match="its classes are positive, negative"):
        CrossEncoder(str(folder))
    with pytest.raises(UserError, match="can't be loaded"):
        CrossEncoder(str(tmp_path / "absent"))
