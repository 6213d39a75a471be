"""How sure the members are, and how much they differ: pure functions over their probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.fusion import Fused, weighted_sum


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """A figure a row, each `(n_samples,) float32`; entropies in nats."""

    entropy: NDArray[np.float32]
    """Of the fused answer: 0 when it is certain, `log(n_classes)` when it is uniform."""
    mutual_information: NDArray[np.float32]
    """Entropy of the members' weighted mean, less the weighted mean of their entropies: the doubt that comes from the
    members' differing, not from each one's own doubt (Houlsby et al. 2011; Lakshminarayanan et al. 2017)."""
    disagreement: NDArray[np.float32]
    """Share of the members, unweighted, whose best class is not the answer's label."""


def measure(probabilities: NDArray[np.float32], weights: NDArray[np.float32], fused: Fused) -> Uncertainty:
    """From `probabilities (n_members, n_samples, n_classes)` and `weights (n_members,)` that sum to 1."""
    mean = weighted_sum(weights, probabilities)
    information = entropy(mean) - weighted_sum(weights, entropy(probabilities))
    return Uncertainty(
        entropy=entropy(fused.probabilities),
        mutual_information=np.maximum(information, np.float32(0)),
        disagreement=(probabilities.argmax(axis=2) != fused.labels).mean(axis=0, dtype=np.float32),
    )


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shannon entropy in nats over the last axis, with 0 log 0 = 0."""
    logs = np.log(np.where(probabilities > 0, probabilities, np.float32(1)))
    return np.asarray(-(probabilities * logs).sum(axis=-1), dtype=np.float32) + np.float32(0)
