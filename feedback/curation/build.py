"""`data build`: one dataset version from the feedback of some collections, with every dropped row accounted for."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from feedback.argilla.progress import Progress
from feedback.curation import contamination, duplicates, length
from feedback.curation.aggregate import decide
from feedback.curation.agreement import PREFERENCE, AgainstPeople, fields_of, of_people, pairs_of, said_of_pair
from feedback.curation.ballots import BallotBox, Pair
from feedback.curation.intervals import wilson
from feedback.curation.options import STANDARD, Options
from feedback.curation.reliability import OVERLAP, Reliability
from feedback.curation.rows import KINDS, Rows
from feedback.curation.splits import SPLITS
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import REVISION, Demonstration, PreferencePair, grounded_prompt
from feedback.versions import DatasetVersion, check_name, write
from feedback.workspace import Workspace

# Agreement is computed on so many of the pairs that several raters judged; more would not change its interval.
AGREEMENT_PAIRS = 10_000
Say = Callable[[str], None]


def build(
    workspace: Workspace,
    name: str,
    collections: Sequence[str] = (),
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    options: Options = STANDARD,
    say: Say = lambda line: None,
) -> tuple[DatasetVersion, bool]:
    """Make a dataset version of the feedback of the collections (all of them if none is named).

    However much there is, it goes through files: memory holds a part of it at a time.

    Args:
        say: takes the lines that a person at the screen reads.

    Returns:
        The version, and whether it is new (the same feedback again gives the version that is there).

    Raises:
        UserError: a collection does not exist, an evaluation file can't be read, or nothing is left to train on.
    """
    check_name(name)
    files = contamination.evaluation_files(workspace)
    workspace.cache.mkdir(exist_ok=True)
    with (
        Database(workspace.database) as database,
        TemporaryDirectory(prefix="build-", dir=workspace.cache) as scratch,
    ):
        database.require(collections)
        chosen = list(collections) or list(database.collections())
        with closing(_Making(Path(scratch), database, name, chosen, fractions, options, say)) as making:
            making.gather()
            making.decide()
            making.curate(contamination.Questions(files))
            return making.write(workspace)


class _Making:
    """One build under way: its files, and what the manifest will say."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        name: str,
        collections: list[str],
        fractions: tuple[float, float, float],
        options: Options,
        say: Say,
    ) -> None:
        self.folder, self.database, self.name, self.collections = folder, database, name, collections
        self.fractions, self.options, self.say = fractions, options, say
        self.box = BallotBox(folder / "votes.sqlite", database)
        self.rows = Rows(folder / "rows.sqlite", fractions)
        self.steps: list[tuple[str, int, int]] = []
        # By reason, what was set aside or dropped.
        self.aside: Counter[str] = Counter()
        self.raters: Counter[tuple[str, str]] = Counter()
        self.details: dict[str, Any] = {}

    def close(self) -> None:
        self.box.close()
        self.rows.db.close()

    def gather(self) -> None:
        """Votes into the ballot box, demonstrations and rewrites among the rows."""
        held = self.database.collections()
        progress = Progress(sum(held[name]["judgements"] for name in self.collections), "reading judgements", self.say)
        for collection, candidate, judgement in self.database.judged(self.collections):
            progress.step(1)
            if not self.options.counts(judgement.rater.kind):
                continue
            self.raters[judgement.rater.name, judgement.rater.kind] += 1
            self.box.add(collection, candidate, judgement)
            if judgement.rewrite and judgement.rewrite.strip():
                prompt = grounded_prompt(candidate.prompt, candidate.context)
                provenance = f"rewrite:{judgement.id}"
                self.rows.add(Demonstration(prompt=prompt, completion=judgement.rewrite, provenance=provenance))
        for demonstration in self.database.demonstrations(self.collections):
            if self.options.counts("ai" if demonstration.provenance.startswith(f"{REVISION}:") else "human"):
                self.rows.add(demonstration)
        self.box.sort()

    def decide(self) -> None:
        """Each pair's votes to a row, or aside; meanwhile, how far the raters agree."""
        reliability = self._reliability() if self.options.aggregation == "dawid-skene" else None
        judges, judged_twice, opposed = AgainstPeople(), 0, []
        said: dict[Hashable, dict[str, str | float]] = {}
        progress = Progress(self.box.count(), "deciding pairs", self.say)
        for pair in self.box.pairs():
            judges.add(pair.votes)
            heard = said_of_pair(pair.votes)
            if len(heard) > 1:
                judged_twice += 1
                if judged_twice <= AGREEMENT_PAIRS:
                    said[pair.id] = dict(heard)
            posterior = reliability.posterior(pair.votes) if reliability else None
            decision = decide(pair.key, pair.votes, posterior, self.options.conflicts == "soft")
            if isinstance(decision, PreferencePair):
                self.rows.add(decision)
            else:
                self._set_aside(decision, pair)
                if decision == "conflict" and self.options.conflicts == "adjudicate":
                    opposed += sorted(set(pair.places))
            progress.step(1)
        if opposed:
            self._send_to_adjudication(opposed)
        if said:
            (field,), raters = fields_of({PREFERENCE: said}), pairs_of({PREFERENCE: said})
            (people,) = fields_of(of_people({PREFERENCE: said}))
            self.details["agreement"] = {
                "judged_twice": judged_twice,
                "field": asdict(field),
                "reading": field.reading,
                "people": asdict(people) | {"reading": people.reading},
                "raters": [asdict(p) | {"agreed_interval": wilson(round(p.agreed * p.n), p.n)} for p in raters],
            }
        self.details["judges"] = [asdict(judge) for judge in judges.result()]

    def curate(self, questions: contamination.Questions) -> None:
        """Drop leaks, duplicates and, if asked to, what makes length tell; a line of the table for each."""
        self.rows.sort()
        standing = self.rows.counts()
        total = sum(standing.values())
        self.steps = [("rows in", self.box.count(), standing["demonstrations"])]
        self.steps += [(reason, -count, 0) for reason, count in sorted(self.aside.items())]
        if questions.checked:
            self._follow(
                "looking for evaluation questions",
                total,
                lambda kind: contamination.drop_leaks(self.rows, kind, questions),
            )
            self.details["leaks"] = {
                "boilerplate_above": contamination.BOILERPLATE,
                "sentence_below": contamination.ANCHOR,
                "files": [asdict(file) for file in questions.checked],
            }
        for kind in KINDS:
            duplicates.drop_exact(self.rows, kind)
        if (threshold := self.options.near_duplicates) is not None:
            self._follow(
                "looking for near duplicates",
                total,
                lambda kind: duplicates.drop_near(self.rows, kind, threshold, self.folder / f"{kind}.signatures"),
            )
            self.details["near_duplicates"] = duplicates.settings(threshold)
        bias = {"before balancing" if self.options.balance_length else "all": length.length_bias(self.rows)}
        if self.options.balance_length:
            length.balance(self.rows)
            bias["after balancing"] = length.length_bias(self.rows)
        self.details["length_bias"] = {when: asdict(figures) for when, figures in bias.items() if figures}

    def _reliability(self) -> Reliability:
        self.say("estimating how reliable the raters are")
        patterns = self.box.patterns(OVERLAP)
        if not patterns:
            raise UserError(
                f"--aggregate dawid-skene: no pair was judged by {OVERLAP} raters or more; "
                "label with more overlap, or leave it at majority"
            )
        found = Reliability(patterns)
        model = found.model
        figures = zip(found.raters, model.votes.tolist(), model.accuracy.tolist(), found.intervals, strict=True)
        self.details["aggregation"] = {
            "overlap": OVERLAP,
            "pairs": found.pairs,
            "iterations": len(model.likelihood),
            "converged": model.converged,
            "raters": [dict(zip(("rater", "votes", "accuracy", "interval"), rater, strict=True)) for rater in figures],
        }
        return found

    def _set_aside(self, reason: str, pair: Pair) -> None:
        prompt, first, second = pair.key
        answers = {"prompt": [message.model_dump() for message in prompt], "answers": [first, second]}
        judgements = sorted({vote.judgement for vote in pair.votes})
        self.rows.set_aside({"reason": reason, **answers, "judgements": judgements})
        self.aside[reason] += 1

    def _send_to_adjudication(self, places: Sequence[tuple[str, str]]) -> None:
        collection = f"{self.name}-conflicts"
        added = self.database.add(collection, (self.database.candidate(*place) for place in places))
        self.say(
            f"{added.candidates + added.known} candidates with opposed votes are in {collection!r} ({added.candidates} "
            f"new); `veritune feedback push {collection}` brings them to the labelling server"
        )

    def _follow(self, name: str, total: int, step: Callable[[str], Iterator[int]]) -> None:
        progress = Progress(total, name, self.say)
        for kind in KINDS:
            for done in step(kind):
                progress.step(done)

    def write(self, workspace: Workspace) -> tuple[DatasetVersion, bool]:
        """The version, with all that was counted on the way.

        Raises:
            UserError: no row is left.
        """
        counts = self.rows.counts()
        dropped = self.rows.dropped()
        for reason in (contamination.REASON, duplicates.EXACT, duplicates.NEAR, length.REASON):
            lost = [dropped.get((reason, kind), 0) for kind in KINDS]
            if any(lost):
                self.steps.append((reason, -lost[0], -lost[1]))
                self.aside[reason] += sum(lost)
        self.steps.append(("rows out", counts["pairs"], counts["demonstrations"]))
        if not sum(counts.values()):
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.aside.items()))
            raise UserError(
                f"dataset {self.name!r}: nothing to build from ({sum(self.raters.values())} judgements, "
                f"{sum(self.aside.values())} set aside{': ' * bool(reasons)}{reasons}, "
                f"in {', '.join(self.collections) or 'no collection'}); "
                "bring feedback in with `veritune feedback import`"
            )
        progress = Progress(sum(counts.values()), "writing", self.say)
        return write(
            workspace,
            self.name,
            {split: _followed(self.rows.records("pairs", split), progress) for split in SPLITS},
            {split: _followed(self.rows.records("demonstrations", split), progress) for split in SPLITS},
            self.rows.all_set_aside(),
            {
                "dropped": dict(sorted(self.aside.items())),
                "steps": self.steps,
                "collections": self.collections,
                "raters": sorted((name, kind, count) for (name, kind), count in self.raters.items()),
                "judgements": sum(self.raters.values()),
                "fractions": list(self.fractions),
                "options": asdict(self.options),
                **self.details,
                "probabilities": self.rows.probabilities(),
                "lengths": length.length_histogram(self.rows),
            },
        )


def _followed(records: Iterator[Any], progress: Progress) -> Iterator[Any]:
    for record in records:
        progress.step(1)
        yield record
