"""A classifier's figures against scikit-learn's, by simulation, and beside what length alone tells."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from training.classifier_quality import LengthBaseline, auroc, quality, sentence


@pytest.mark.parametrize("kinds", [2, 3])
def test_figures_are_scikit_learns(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    probabilities = rng.dirichlet(np.ones(kinds), 60)
    labels = rng.integers(0, kinds, 60)
    found = quality(probabilities, labels.tolist())
    said = probabilities.argmax(1)
    assert found["n"] == 60
    assert found["accuracy"] == accuracy_score(labels, said)
    assert found["f1_macro"] == pytest.approx(f1_score(labels, said, average="macro"))
    area = roc_auc_score(labels, probabilities[:, 1] if kinds == 2 else probabilities, multi_class="ovr")
    assert found["auroc"] == pytest.approx(area)
    assert ("auroc_low" in found) == (kinds == 2)


def test_ties_count_half() -> None:
    scores, positive = np.array([0.1, 0.4, 0.4, 0.4, 0.9]), np.array([False, True, False, True, True])
    assert auroc(scores, positive)[0] == pytest.approx(roc_auc_score(positive, scores))


def test_a_label_that_does_not_occur_leaves_no_area() -> None:
    found = quality([[0.2, 0.8], [0.6, 0.4]], [1, 1])
    assert "auroc" not in found
    assert found["accuracy"] == 0.5


def test_the_interval_covers_the_true_area() -> None:
    """Two normal distributions one standard deviation apart have an area of Phi(1 / sqrt 2) = 0.760."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        scores = np.concatenate([rng.normal(0, 1, 60), rng.normal(1, 1, 40)])
        _, low, high = auroc(scores, np.arange(100) >= 60)
        covered.append(low <= 0.7602 <= high)
    assert np.mean(covered) == pytest.approx(0.945, abs=0.018)


def test_the_baseline_knows_lengths_and_nothing_else() -> None:
    lengths = [*range(10, 40), *range(100, 160)]
    labels = [0] * 30 + [1] * 60
    baseline = LengthBaseline(lengths, labels, 3)
    probabilities = baseline([12, 150])
    assert probabilities.argmax(1).tolist() == [0, 1]
    assert probabilities[:, 2].tolist() == [0, 0]
    assert probabilities.sum(1) == pytest.approx([1, 1])


def test_a_sentence_says_how_each_figure_came_about() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 80).tolist()
    found = quality(rng.dirichlet([1, 1], 80), labels) | {"length_accuracy": 0.5, "length_f1_macro": 0.4}
    metrics = {f"eval_{name}": value for name, value in (found | {"length_auroc": 0.55}).items()}
    said = sentence(metrics)
    assert said.startswith("of 80 held-out examples ")
    assert "95%; by length alone 50.0%" in said
    assert "macro F1" in said
    assert said.endswith("95%); by length 0.550")
    assert "AUROC" not in sentence({k: v for k, v in metrics.items() if "auroc" not in k})
