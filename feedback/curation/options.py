"""What one may choose about the making of a dataset version."""

from dataclasses import dataclass

from feedback.errors import UserError

AGGREGATIONS = ("majority", "dawid-skene")
CONFLICTS = ("drop", "soft", "adjudicate")
# Scripts stand in for people, here as where judges are compared with people.
RATERS = {"all": ("human", "script", "ai"), "people": ("human", "script"), "ai": ("ai",)}


@dataclass(frozen=True)
class Options:
    """How a version is made.

    Args:
        aggregation: "majority" takes the mean of the votes; "dawid-skene" weighs raters by their reliability.
        conflicts: what becomes of opposed votes of equal weight: "drop" sets them aside, "soft" keeps them with
            probability 0.5, "adjudicate" sets them aside and copies their candidates into the collection
            NAME-conflicts, to be labelled anew.
        near_duplicates: Jaccard similarity from which a row goes as a near-duplicate; None keeps them.
        balance_length: see `length.balance`.
        raters: whose word counts: "all", "people" or "ai"; a demonstration is a model's if a revision made it.

    Raises:
        UserError: a value is none of these; a line for each.
    """

    aggregation: str = "majority"
    conflicts: str = "drop"
    near_duplicates: float | None = None
    balance_length: bool = False
    raters: str = "all"

    def __post_init__(self) -> None:
        mistakes = []
        if self.aggregation not in AGGREGATIONS:
            mistakes.append(f"--aggregate {self.aggregation}: there are {' and '.join(AGGREGATIONS)}")
        if self.conflicts not in CONFLICTS:
            mistakes.append(f"--conflicts {self.conflicts}: there are {', '.join(CONFLICTS)}")
        if self.near_duplicates is not None and not 0.5 <= self.near_duplicates <= 1:
            mistakes.append(f"--near-duplicates {self.near_duplicates}: give a similarity from 0.5 to 1, e.g. 0.8")
        if self.raters not in RATERS:
            mistakes.append(f"--raters {self.raters}: there are {', '.join(RATERS)}")
        if mistakes:
            raise UserError(*mistakes)

    def counts(self, kind: str) -> bool:
        """Whether the word of raters of a kind counts."""
        return kind in RATERS[self.raters]


STANDARD = Options()
