"""Is what an answer claims supported by a corpus that the user trusts?

Each sentence is a claim; BM25 finds the passages that speak of it, and entailment says whether one of them supports or
contradicts it (FEVER's scheme, arXiv 1803.05355; by sentences as in FActScore, arXiv 2305.14251).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluation.hallucination.entailment import Entailment, Verdict
from evaluation.hallucination.sentences import Sentence, sentences
from feedback.errors import UserError
from training.abstention import abstains

PASSAGES = 5
# A verdict counts where it is likelier than not.
SURE = 0.5
Support = Literal["supported", "contradicted", "not found"]


@dataclass(frozen=True)
class Claim:
    """One sentence of an answer, what the corpus says of it, and the passage that says so.

    Args:
        probability: of that verdict; of the likeliest entailment or contradiction where nothing was found.
    """

    sentence: Sentence
    support: Support
    probability: float
    passage: str | None


class Corpus:
    """Passages, found by their words (BM25, Robertson & Zaragoza 2009).

    Raises:
        UserError: there is no passage.
    """

    def __init__(self, passages: Sequence[str]) -> None:
        import bm25s

        if not passages:
            raise UserError("corpus: it holds no passage")
        self.passages = list(passages)
        self._index = bm25s.BM25(corpus=None)
        self._index.index(_tokens(self.passages), show_progress=False)

    def find(self, queries: Sequence[str], k: int = PASSAGES) -> list[list[str]]:
        """The `k` passages that share most with each query; none that shares no word."""
        found, scores = self._index.retrieve(_tokens(queries), k=min(k, len(self.passages)), show_progress=False)
        return [
            [self.passages[place] for place, score in zip(places, values, strict=True) if score > 0]
            for places, values in zip(found.tolist(), scores.tolist(), strict=True)
        ]


def check_claims(answer: str, corpus: Corpus, entailment: Entailment, question: str = "") -> list[Claim]:
    """Each sentence of an answer against the corpus; support by one passage outweighs contradiction by another.

    Args:
        answer: one that declines to answer claims nothing.
        question: stands before each sentence, where answers are too short to be understood alone.
    """
    parts = [] if abstains(answer) else sentences(answer)
    if not parts:
        return []
    claimed = [f"{question} {part.text}" if question else part.text for part in parts]
    passages = corpus.find(claimed)
    asked = [(passage, claim) for claim, found in zip(claimed, passages, strict=True) for passage in found]
    verdicts = iter(entailment(asked))
    return [
        _claim(part, [(passage, next(verdicts)) for passage in found])
        for part, found in zip(parts, passages, strict=True)
    ]


def read_corpus(path: Path) -> Corpus:
    """Passages of a text file (parted by empty lines) or of a JSONL file, one {"text": ...} a line.

    Raises:
        UserError: it can't be read, or lines hold no text; one line for each.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"corpus {path}: can't be read ({error})") from None
    if path.suffix != ".jsonl":
        return Corpus([" ".join(part.split()) for part in content.split("\n\n") if part.strip()])
    mistakes: list[str] = []
    passages = list(_texts(path, content, mistakes))
    if mistakes:
        raise UserError(*mistakes[:20])
    return Corpus(passages)


def _claim(sentence: Sentence, verdicts: Sequence[tuple[str, Verdict]]) -> Claim:
    supports = max(verdicts, key=lambda found: found[1].entails, default=None)
    contradicts = max(verdicts, key=lambda found: found[1].contradicts, default=None)
    if supports is None or contradicts is None:
        return Claim(sentence, "not found", 0.0, None)
    if supports[1].entails > SURE:
        return Claim(sentence, "supported", supports[1].entails, supports[0])
    if contradicts[1].contradicts > SURE:
        return Claim(sentence, "contradicted", contradicts[1].contradicts, contradicts[0])
    return Claim(sentence, "not found", max(supports[1].entails, contradicts[1].contradicts), None)


def _texts(path: Path, content: str, mistakes: list[str]) -> Iterator[str]:
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if isinstance(text, str) and text.strip():
            yield text
        else:
            mistakes.append(f'corpus {path}, line {number}: must be {{"text": ...}}')


def _tokens(texts: Sequence[str]) -> object:
    import bm25s

    return bm25s.tokenize(list(texts), stopwords="en", show_progress=False)
