"""`data build`: one dataset version from the feedback of some collections, with every dropped row accounted for."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from feedback.curation.aggregate import collect_votes, decide
from feedback.curation.splits import SPLITS, split_of
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Demonstration, PreferencePair, grounded_prompt
from feedback.versions import DatasetVersion, write
from feedback.workspace import Workspace


def build(
    workspace: Workspace,
    name: str,
    collections: Sequence[str] = (),
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> tuple[DatasetVersion, bool]:
    """Aggregate the judgements of the collections (all of them if none is named) into a dataset version.

    Returns:
        The version, and whether it is new (the same feedback again gives the version that is there).

    Raises:
        UserError: a collection does not exist, or nothing is left to train on.
    """
    with Database(workspace.database) as database:
        database.require(collections)
        chosen = list(collections) or list(database.collections())
        candidates = {candidate.id: candidate for candidate in database.candidates(chosen)}
        judgements = list(database.judgements(chosen))
        demonstrations = list(database.demonstrations(chosen))

    pairs: list[PreferencePair] = []
    set_aside: list[dict[str, Any]] = []
    for key, votes in collect_votes(candidates.values(), judgements).items():
        decision = decide(key, votes)
        if isinstance(decision, PreferencePair):
            pairs.append(decision)
        else:
            prompt, first, second = key
            answers = {"prompt": [m.model_dump() for m in prompt], "answers": [first, second]}
            set_aside.append({"reason": decision, **answers, "judgements": sorted(set(votes.judgements))})

    for judgement in judgements:
        if judgement.rewrite and judgement.rewrite.strip():
            source = candidates[judgement.candidate_id]
            prompt = grounded_prompt(source.prompt, source.context)
            provenance = f"rewrite:{judgement.id}"
            demonstrations.append(Demonstration(prompt=prompt, completion=judgement.rewrite, provenance=provenance))
    unique = {(d.prompt, d.completion): d for d in reversed(demonstrations)}
    repeated = len(demonstrations) - len(unique)
    if not pairs and not unique:
        raise UserError(
            f"dataset {name!r}: nothing to build from ({len(judgements)} judgements, "
            f"{len(set_aside)} set aside, in {', '.join(chosen) or 'no collection'}); "
            "bring feedback in with `veritune feedback import`"
        )

    # Sorted, so that the same feedback gives the same bytes whatever order it came in.
    ordered_pairs = sorted(pairs, key=lambda pair: pair.model_dump_json())
    ordered_demonstrations = sorted(unique.values(), key=lambda d: d.model_dump_json())
    raters = Counter((judgement.rater.name, judgement.rater.kind) for judgement in judgements)
    return write(
        workspace,
        name,
        {split: [p for p in ordered_pairs if split_of(p.prompt, fractions) == split] for split in SPLITS},
        {split: [d for d in ordered_demonstrations if split_of(d.prompt, fractions) == split] for split in SPLITS},
        sorted(set_aside, key=str),
        {
            "dropped": dict(sorted(Counter(row["reason"] for row in set_aside).items()))
            | ({"repeated demonstration": repeated} if repeated else {}),
            "collections": chosen,
            "raters": sorted((name, kind, count) for (name, kind), count in raters.items()),
            "judgements": len(judgements),
            "fractions": list(fractions),
        },
    )
