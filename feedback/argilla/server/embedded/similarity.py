"""Which vectors are nearest to one, with no more of them in memory at once than a part."""

import heapq
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from argilla_server.enums import SimilarityOrder
from argilla_server.errors.future import UnprocessableEntityError

# Reading them takes the server's one thread: small enough that others don't wait long.
PART = 200


class Nearest:
    """The most, or least, similar of all vectors looked at, by cosine scaled to 0..1 as Elasticsearch's scores are.

    Args:
        vector: what they are compared with.
        dimensions: how many numbers each has.
        order: most or least similar first.
        limit: how many to keep.
        threshold: the least score that counts; 0 where it is None.

    Raises:
        UnprocessableEntityError: the vector has another number of dimensions, or some that are infinite.
    """

    def __init__(
        self, vector: Sequence[float], dimensions: int, order: SimilarityOrder, limit: int, threshold: float | None
    ) -> None:
        if len(vector) != dimensions or not all(map(math.isfinite, vector)):
            raise UnprocessableEntityError(f"the vector to compare with is not one of {dimensions} finite numbers")
        direction = _directions([vector])[0]
        self._direction = -direction if order == SimilarityOrder.least_similar else direction
        self._limit, self._threshold = limit, threshold or 0.0
        self.found: list[tuple[Any, float]] = []

    def look_at(self, part: Sequence[tuple[Any, str]]) -> None:
        """Take in a part of the vectors: pairs of a key and a JSON list of numbers."""
        cosines = _directions([json.loads(vector) for _, vector in part]) @ self._direction
        scores = ((1 + np.clip(cosines, -1, 1)) / 2).tolist()
        enough = [(key, score) for (key, _), score in zip(part, scores, strict=True) if score >= self._threshold]
        self.found = heapq.nlargest(self._limit, self.found + enough, key=lambda pair: pair[1])


def _directions(vectors: Sequence[Sequence[float]]) -> np.ndarray:
    matrix = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(lengths == 0, 1, lengths)
