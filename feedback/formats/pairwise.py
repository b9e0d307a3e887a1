"""Rows that compare answers by number or score: PandaLM, LLMBar and UltraFeedback."""

import re
from typing import Any

from feedback.formats.demonstrations import instruction
from feedback.formats.fields import (
    Origin,
    Records,
    Refused,
    as_text,
    asked,
    choice,
    messages,
    number,
    optional_text,
    rest,
    shown,
    split_answer,
)
from feedback.schema import TIE, Candidate, Rater, Response, user_message

ANNOTATOR = re.compile(r"annotator\d+")
PANDALM_FIELDS = ("instruction", "input", "response1", "response2")


def pandalm(row: dict[str, Any], origin: Origin) -> Records:
    """Two responses to an instruction, and what each annotator prefers: 0 neither, 1 or 2.

    `cmp_key` names the two models. The released file holds true and false where a model answered with that one word.

    Raises:
        Refused: a field is missing or can't be used, or no annotator says anything.

    Source: Wang et al., arXiv 2306.05087, data/testset-v1.json.
    """
    names = ("response1", "response2")
    texts = [str(row[name]) if isinstance(row.get(name), bool) else row.get(name) for name in names]
    models = str(row.get("cmp_key") or "").split("_")
    candidate = _two(
        instruction(row),
        (as_text(texts[0], names[0]), as_text(texts[1], names[1])),
        names,
        models if len(models) == 2 else [None, None],
        {key: value for key, value in row.items() if not ANNOTATOR.fullmatch(key) and key not in PANDALM_FIELDS},
    )
    said = {
        name: choice(value, name, (0, 1, 2))
        for name, value in row.items()
        if ANNOTATOR.fullmatch(name) and value not in (None, "")
    }
    if not said:
        raise Refused("no field annotator1, annotator2, ... says which response is better")
    judgements = [
        origin.judgement(candidate, Rater(kind=origin.kind, name=name), preferred=preferred - 1 if preferred else TIE)
        for name, preferred in said.items()
    ]
    return Records([candidate], judgements)


def llmbar(row: dict[str, Any], origin: Origin) -> Records:
    """Two outputs to an input, and the label 1 or 2 of the better one.

    Raises:
        Refused: a field is missing or can't be used.

    Source: Zeng et al., arXiv 2310.07641, Dataset/*/dataset.json.
    """
    names = ("output_1", "output_2")
    outputs = (as_text(row.get(names[0]), names[0]), as_text(row.get(names[1]), names[1]))
    metadata = rest(row, "input", *names, "label")
    candidate = _two(as_text(row.get("input"), "input"), outputs, names, [None, None], metadata)
    preferred = choice(row.get("label"), "label", (1, 2)) - 1
    return Records([candidate], [origin.judgement(candidate, origin.rater_of(row), preferred=preferred)])


def ultrafeedback(row: dict[str, Any], origin: Origin) -> Records:
    """K completions with scores, or the binarized chosen and rejected conversations with theirs.

    The completions are ranked by the first of overall_score, fine-grained_score and the mean of the annotations'
    ratings that each of them has; equal scores share a place. Ratings are named by response, e.g. `0.honesty`.

    Raises:
        Refused: a field is missing or can't be used, or a score contradicts what was chosen.

    Source: Cui et al., arXiv 2310.01377, data at openbmb/UltraFeedback.
    """
    if "completions" not in row:
        return _binarized(row, origin)
    completions = row["completions"]
    if not isinstance(completions, list) or len(completions) < 2:
        raise Refused(f"completions is {shown(completions)}, not a list of two or more")
    responses, aspects = [], []
    for place, completion in enumerate(completions):
        at = f"completions[{place}]"
        if not isinstance(completion, dict):
            raise Refused(f"{at} is {shown(completion)}, not an object")
        text = as_text(completion.get("response"), f"{at}.response")
        responses.append(Response(text=text, model=optional_text(completion, "model", limit=200)))
        aspects.append(_aspects(completion, at))
    scores = _scores(completions, aspects)
    question = "instruction" if "instruction" in row else "prompt"
    candidate = Candidate(
        prompt=asked(user_message(as_text(row.get(question), question))),
        responses=tuple(responses),
        metadata=rest(row, question, "completions")
        | {"completions": [rest(completion, "response", "model") for completion in completions]},
    )
    judgement = origin.judgement(
        candidate,
        origin.rater_of(row),
        ranking=tuple(
            tuple(place for place, score in enumerate(scores) if score == level)
            for level in sorted(set(scores), reverse=True)
        ),
        ratings={
            f"{place}.{aspect}": rating
            for place, rated in enumerate(aspects)
            for aspect, rating in ({"score": scores[place]} | rated).items()
        },
    )
    return Records([candidate], [judgement])


def _binarized(row: dict[str, Any], origin: Origin) -> Records:
    names = ("chosen", "rejected")
    chosen, rejected = (split_answer(messages(row.get(name), name), name) for name in names)
    score_names = ("score_chosen", "score_rejected")
    scores = None
    if any(row.get(name) is not None for name in score_names):
        scores = (number(row.get(score_names[0]), score_names[0]), number(row.get(score_names[1]), score_names[1]))
        if scores[0] < scores[1]:
            raise Refused(f"score_chosen is {scores[0]:g}, below score_rejected, {scores[1]:g}")
    # `prompt` and `messages` repeat what stands in `chosen`.
    metadata = rest(row, "prompt", "messages", *names, *score_names, "context", "probability")
    return origin.pair(row, (chosen, rejected), names, metadata, scores)


def _two(
    question: str, texts: tuple[str, str], names: tuple[str, str], models: list[Any], metadata: dict[str, Any]
) -> Candidate:
    if texts[0] == texts[1]:
        raise Refused(f"{names[0]} and {names[1]} are the same text")
    responses = tuple(Response(text=text, model=model) for text, model in zip(texts, models, strict=True))
    return Candidate(prompt=asked(user_message(question)), responses=responses, metadata=metadata)


def _aspects(completion: dict[str, Any], at: str) -> dict[str, float]:
    """The ratings of the annotations; "N/A" is none."""
    annotations = completion.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise Refused(f"{at}.annotations is {shown(annotations)}, not an object")
    ratings = {aspect: said.get("Rating") if isinstance(said, dict) else said for aspect, said in annotations.items()}
    return {
        aspect: number(rating, f"{at}.annotations.{aspect}.Rating")
        for aspect, rating in ratings.items()
        if rating not in (None, "N/A")
    }


def _scores(completions: list[dict[str, Any]], aspects: list[dict[str, float]]) -> list[float]:
    for name in ("overall_score", "fine-grained_score"):
        if all(completion.get(name) is not None for completion in completions):
            return [number(completion[name], f"completions[{i}].{name}") for i, completion in enumerate(completions)]
    if all(aspects):
        return [sum(rated.values()) / len(rated) for rated in aspects]
    raise Refused("completions have no score that all of them share (overall_score, fine-grained_score, annotations)")
