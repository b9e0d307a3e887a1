"""What the HaluEval tasks refer to; lm-eval finds functions only beside the YAML file."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset


def both_answers(dataset: "Dataset") -> "Dataset":
    """Each row twice: with its right answer, and with its hallucinated one."""
    from datasets import Dataset

    kept = ("knowledge", "question")
    return Dataset.from_list(
        [
            {**{key: row[key] for key in kept}, "answer": row[field], "hallucinated": field == "hallucinated_answer"}
            for row in dataset
            for field in ("right_answer", "hallucinated_answer")
        ]
    )
