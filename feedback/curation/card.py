"""A version's card: every figure of its making, for people."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from feedback.curation.plots import Bar, bar_chart

CARD = "CARD.md"
PLOTS = "plots"


def write_card(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write CARD.md and its plots beside the version's data."""
    charts = _charts(manifest)
    if charts:
        (folder / PLOTS).mkdir()
    for name, chart in charts.items():
        (folder / PLOTS / f"{name}.svg").write_text(chart, encoding="utf-8")
    sections = [_head(manifest), _steps(manifest)]
    for key, section in SECTIONS.items():
        if manifest.get(key):
            sections.append(section(manifest[key]))
    sections += [f"![{name}]({PLOTS}/{name}.svg)" for name in charts]
    sections.append(
        "Splits are by prompt: a prompt's hash alone decides where it stands, in this version and in later ones."
    )
    (folder / CARD).write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _head(manifest: Mapping[str, Any]) -> str:
    splits = ", ".join(f"{split} {count}" for split, count in manifest["splits"].items())
    raters = _table(["rater", "kind", "judgements"], manifest["raters"] or [("nobody", "", 0)])
    return f"""# {manifest["name"]}, version {manifest["version"]}

{manifest["pairs"]} preference pairs and {manifest["demonstrations"]} demonstrations; rows by split: {splits}.
Fingerprint `{manifest["fingerprint"]}`, written {manifest["created_at"]} by veritune {manifest["veritune"]}.

From the collections {", ".join(manifest["collections"])}, judged by:

{raters}"""


def _steps(manifest: Mapping[str, Any]) -> str:
    rows = manifest.get("steps") or [(reason, count, "") for reason, count in manifest["dropped"].items()]
    return f"""## What became of the rows

What was dropped is in set_aside.jsonl, each row with its reason.

{_table(["step", "pairs", "demonstrations"], rows or [("nothing dropped", 0, 0)])}"""


def _aggregation(found: Mapping[str, Any]) -> str:
    rows = [
        (rater["rater"], f"{rater['votes']:g}", _share(rater["accuracy"]), _interval(rater["interval"]))
        for rater in found["raters"]
    ]
    table = _table(["rater", "votes (n)", "accuracy", "95% interval"], rows)
    end = "ended" if found["converged"] else "was stopped, not yet at rest,"
    return f"""## How reliable the raters are

By the model of Dawid and Skene (1979) on the {found["pairs"]} pairs that {found["overlap"]} raters or more judged;
EM {end} after {found["iterations"]} iterations. An accuracy is the share of a rater's votes on these pairs that is
expected to be right, its interval a bootstrap's. It weighs the rater on every pair; where anybody else voted too, the
mean of the votes stands.

{table}"""


def _agreement(found: Mapping[str, Any]) -> str:
    field, people = found["field"], found["people"]
    alone = ""
    if people["units"] and people["raters"] < field["raters"]:
        alone = f"People alone: {_alpha(people)}, n = {people['units']}: {people['reading']}.\n"
    drawn = f", a random sample of {found['judged_twice']}" if field["units"] < found["judged_twice"] else ""
    rows = [
        (p["first"], p["second"], p["n"], _share(p["agreed"]), _number(p["kappa"]), _ends(p["low"], p["high"]))
        for p in found["raters"]
    ]
    return f"""## How far the raters agree

Krippendorff's {_alpha(field)}, n = {field["units"]} pairs that two raters or more judged{drawn}: {found["reading"]}.
{alone}Cohen's kappa of each two:

{_table(["rater", "and rater", "n", "agreed on", "kappa", "95% interval"], rows)}"""


def _alpha(field: Mapping[str, Any]) -> str:
    if field["alpha"] is None:
        return "no alpha, for lack of variation"
    return f"alpha {field['alpha']:.3f}" + (
        f" ({_ends(field['low'], field['high'])})" if field["low"] is not None else ""
    )


def _judges(found: Sequence[Mapping[str, Any]]) -> str:
    sections = ["## AI judges against people"]
    for judge in found:
        kappa = f"kappa {_number(judge['kappa'])} ({_interval(judge['kappa_interval'])})"
        cells = [(said, *row) for said, row in zip(("first", "second", "tie"), judge["cells"], strict=True)]
        sections.append(
            f"{judge['judge']}, n = {judge['n']}: agreed on {_share(judge['agreed'])} "
            f"({_interval(judge['agreed_interval'])}), {kappa}.\n\n"
            + _table(["people say \\ judge says", "first", "second", "tie"], cells)
        )
        if judge["decided"]:
            rows = [
                (
                    f"{c['low']} to {c['high']}",
                    c["n"],
                    _share(c["stated"]),
                    _share(c["right"]),
                    _interval(c["right_interval"]),
                )
                for c in judge["calibration"]
            ]
            sections.append(
                f"Is its probability right, where both decided (n = {judge['decided']}): Brier {judge['brier']:.3f} "
                f"({_interval(judge['brier_interval'])}).\n\n"
                + _table(["probability", "n", "stated", "people agree", "95% interval"], rows)
            )
    return "\n\n".join(sections)


def _leaks(found: Mapping[str, Any]) -> str:
    rows = [(f["file"], f["questions"], f["words"], f["boilerplate"], f["leaked"], f["rows"]) for f in found["files"]]
    heads = ["file", "questions", "words in a row", "boilerplate", "questions leaked", "rows dropped"]
    return f"""## Leaked evaluation questions

A row leaks a question that shares so many words in a row with it (GPT-3, arXiv 2005.14165, appendix C: the fifth
percentile of the questions' lengths, 8 to 13); a shorter question must stand in it as a whole, one of fewer than
{found["sentence_below"]} words as a sentence of its own. Words that more than {found["boilerplate_above"]} questions
share are boilerplate and leak nothing.

{_table(heads, rows)}"""


def _near(found: Mapping[str, Any]) -> str:
    return f"""## Near duplicates

Dropped where prompt and answers each have a Jaccard similarity of {found["threshold"]} or more to an earlier row's,
over {found["shingle"]} tokens in a row. Found by MinHash (seed {found["seed"]}, {found["permutations"]} permutations,
{found["bands"]} bands of {found["width"]}), then compared exactly; the row that is first in the order of text stays."""


def _length(found: Mapping[str, Any]) -> str:
    rows: list[tuple[object, ...]] = []
    for when, bias in found.items():
        difference = f"{bias['difference']:+.1f}", _interval(bias["difference_interval"], 1)
        longer = _share(bias["longer"]), _interval(bias["longer_interval"])
        correlation = _number(bias["correlation"]), _interval(bias["correlation_interval"])
        rows += [
            (when, "chosen less rejected, characters", bias["n"], *difference),
            (when, "the longer one is chosen", bias["unequal"], *longer),
            (when, "correlation of length and preference", bias["n"], *correlation),
        ]
    return f"""## Does length give the chosen answer away

{_table(["pairs", "figure", "n", "value", "95% interval"], rows)}"""


SECTIONS: Mapping[str, Callable[[Any], str]] = {
    "aggregation": _aggregation,
    "agreement": _agreement,
    "judges": _judges,
    "leaks": _leaks,
    "near_duplicates": _near,
    "length_bias": _length,
}


def _charts(manifest: Mapping[str, Any]) -> dict[str, str]:
    charts = {}
    if counts := manifest.get("probabilities"):
        bars = [Bar(label, count, f"{count} pairs") for label, count in counts.items()]
        charts["probabilities"] = bar_chart("Pairs by the probability that the chosen answer is better", bars)
    if counts := manifest.get("lengths"):
        bars = [Bar(label, count, f"{count} pairs") for label, count in counts]
        charts["lengths"] = bar_chart("Pairs by how many characters longer the chosen answer is", bars)
    shares = [
        Bar(_both(p), p["agreed"], f"{p['agreed']:.1%} of {p['n']}", tuple(p["agreed_interval"]))
        for p in (manifest.get("agreement") or {}).get("raters", ())
    ]
    if shares:
        charts["agreement"] = bar_chart("Share of pairs on which two raters agree", shares, longest=1)
    return charts


def _both(pair: Mapping[str, Any]) -> str:
    return " / ".join(pair[side].removesuffix(" (human)") for side in ("first", "second"))


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    # A rater's name is anybody's text.
    cells = ([" ".join(str(cell).split()).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    return "-" if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def _ends(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else _interval((low, high))
