"""Does one text follow from another? What checks ask, and a cross-encoder that answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedback.errors import UserError

if TYPE_CHECKING:
    import torch

# Names that published models give to the three classes.
LABELS = {"entails": ("entail",), "neutral": ("neutral",), "contradicts": ("contradict", "not_entail")}


@dataclass(frozen=True)
class Verdict:
    """How probable it is that a premise entails a hypothesis, says nothing of it, or contradicts it; the sum is 1."""

    entails: float
    neutral: float
    contradicts: float

    @property
    def label(self) -> str:
        """The most probable of the three."""
        return max(vars(self), key=lambda name: float(getattr(self, name)))


# Pairs of premise and hypothesis in, their verdicts out, in order.
Entailment = Callable[[Sequence[tuple[str, str]]], Sequence[Verdict]]


class CrossEncoder:
    """A sequence classifier that was trained on natural-language inference.

    Args:
        name: a folder or hub name.
        batch_size: pairs in one forward pass.

    Raises:
        UserError: it can't be loaded, or its classes are not those of natural-language inference.
    """

    def __init__(self, name: str, batch_size: int = 32) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model = AutoModelForSequenceClassification.from_pretrained(
                name, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise UserError(f"model {name!r}: can't be loaded ({str(error).splitlines()[0][:200]})") from None
        self._columns = _columns(name, model.config.id2label)
        self._model, self._batch_size = model.eval(), batch_size

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts on pairs of premise and hypothesis; the longer is cut at the model's length."""
        # Pairs of like length share a batch; the order of the answers is that of the questions.
        order = sorted(range(len(pairs)), key=lambda place: sum(map(len, pairs[place])))
        verdicts: dict[int, Verdict] = {}
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            rows = self._probabilities([pairs[place] for place in places])
            verdicts.update(zip(places, self._verdicts(rows), strict=True))
        return [verdicts[place] for place in range(len(pairs))]

    def _probabilities(self, pairs: Sequence[tuple[str, str]]) -> "torch.Tensor":
        import torch

        encoded = self._tokenizer(
            [premise for premise, _ in pairs],
            [hypothesis for _, hypothesis in pairs],
            # The premise, unless the hypothesis alone is too long for the model.
            truncation="longest_first",
            padding=True,
            return_tensors="pt",
        ).to(self._model.device)
        with torch.no_grad():
            return self._model(**encoded).logits.float().softmax(-1).cpu()

    def _verdicts(self, rows: "torch.Tensor") -> Iterator[Verdict]:
        for row in rows.tolist():
            yield Verdict(**{name: 0.0 if column is None else row[column] for name, column in self._columns.items()})


def _columns(name: str, id2label: dict[int, Any]) -> dict[str, int | None]:
    """Which class says what; a model may do without `neutral`."""
    columns: dict[str, int | None] = {}
    for verdict, beginnings in LABELS.items():
        found = [i for i, label in id2label.items() if str(label).lower().startswith(beginnings)]
        columns[verdict] = found[0] if found else None
    if columns["entails"] is None or columns["contradicts"] is None:
        raise UserError(
            f"model {name!r}: its classes are {', '.join(map(str, id2label.values()))}; those of an entailment model "
            "begin with entail and contradict"
        )
    return columns
