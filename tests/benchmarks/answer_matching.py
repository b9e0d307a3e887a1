"""How often matching answers agrees with people, on answers of the EfficientQA competition that people rated."""

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from evaluation.statistics import mcnemar_exact, wilson
from training.matching import exact_match, matches

RESULTS = Path(__file__).parent / "results" / "answer_matching.json"
RATED = Path(__file__).parents[3] / "shared" / "data" / "nq-open" / "efficientqa_rated.jsonl"
KINDS = {"def_correct_predictions": True, "def_incorrect_predictions": False}
RULES: dict[str, Callable[[str, str], bool]] = {"SQuAD's exact match": exact_match, "ours": matches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rated", type=Path, default=RATED, help="NQ-open.efficientqa.test.1.1.jsonl")
    rows = [json.loads(line) for line in parser.parse_args().rated.read_text(encoding="utf-8").splitlines()]
    rated = [(answer, row["answer"], right) for row in rows for kind, right in KINDS.items() for answer in row[kind]]
    agreed, kept = {}, []
    print(f"{len(rated):,} answers rated as definitely right or wrong, none of them an accepted answer to the letter")
    print(f"{'rule':<20} {'agrees':>7} {'95% interval':>16} {'right found':>12} {'wrong accepted':>15}")
    for name, rule in RULES.items():
        accepted = [any(rule(answer, one) for one in answers) for answer, answers, _ in rated]
        agreed[name] = [said is right for said, (_, _, right) in zip(accepted, rated, strict=True)]
        found = [said for said, (_, _, right) in zip(accepted, rated, strict=True) if right]
        wrong = [said for said, (_, _, right) in zip(accepted, rated, strict=True) if not right]
        share, (low, high) = sum(agreed[name]) / len(rated), wilson(sum(agreed[name]), len(rated))
        print(
            f"{name:<20} {share:>7.1%} {f'{low:.1%} to {high:.1%}':>16} {f'{sum(found)} of {len(found)}':>12} "
            f"{f'{sum(wrong)} of {len(wrong)}':>15}"
        )
        kept.append({"rule": name, "agrees": share, "low": low, "high": high, "n": len(rated)})
        kept[-1] |= {"right_found": [sum(found), len(found)], "wrong_accepted": [sum(wrong), len(wrong)]}
    p_value = mcnemar_exact(*agreed.values())
    print(f"the two differ with p = {p_value:.2g} (exact McNemar)")
    result = {"date": datetime.now(UTC).date().isoformat(), "rules": kept, "p_value": p_value}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
