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
    vote_entropy: NDArray[np.float32]
    """Entropy of the shares of the members' votes, unweighted: 0 if all have the same best class (Dagan & Engelson
    1995)."""
    jensen_shannon: NDArray[np.float32]
    """Jensen-Shannon divergence of the members' answers, every one counting the same (Lin 1991): as the mutual
    information, but deaf to the weights."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a regression."""

    spread: NDArray[np.float32]
    """`(n_samples, n_targets)`: the weighted standard deviation of the members' values, in the target's unit."""


def measure(probabilities: NDArray[np.float32], weights: NDArray[np.float32], fused: Fused) -> Uncertainty:
    """From `probabilities (n_members, n_samples, n_classes)` and `weights (n_members,)` that sum to 1."""
    entropies = entropy(probabilities)
    equal = np.full(len(probabilities), 1 / len(probabilities), dtype=np.float32)
    votes = probabilities.argmax(axis=2)
    ballots = (votes[:, :, None] == np.arange(probabilities.shape[2])).astype(np.float32)
    return Uncertainty(
        entropy=entropy(fused.probabilities),
        mutual_information=_divergence(probabilities, entropies, weights),
        disagreement=(votes != fused.labels).mean(axis=0, dtype=np.float32),
        vote_entropy=entropy(ballots.mean(axis=0, dtype=np.float32)),
        jensen_shannon=_divergence(probabilities, entropies, equal),
    )


def spread(values: NDArray[np.float32], weights: NDArray[np.float32]) -> Spread:
    """From `values (n_members, n_samples, n_targets)` and `weights (n_members,)` that sum to 1."""
    offsets = values - values[0]  # so that of equal members nothing is left, whatever their size
    deviations = offsets - weighted_sum(weights, offsets)
    return Spread(np.sqrt(weighted_sum(weights, deviations * deviations)))


def _divergence(
    probabilities: NDArray[np.float32], entropies: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Entropy of the weighted mean, less the weighted mean of the entropies; what is below 0 is rounding."""
    information = entropy(weighted_sum(weights, probabilities)) - weighted_sum(weights, entropies)
    return np.asarray(np.maximum(information, np.float32(0)), dtype=np.float32)


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shannon entropy in nats over the last axis, with 0 log 0 = 0."""
    logs = np.log(np.where(probabilities > 0, probabilities, np.float32(1)))
    return np.asarray(-(probabilities * logs).sum(axis=-1), dtype=np.float32) + np.float32(0)
