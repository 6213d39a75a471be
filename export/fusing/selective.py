"""Answering less to be right more often: what abstaining below a confidence would bring."""

import numpy as np
from numpy.typing import NDArray

from server.fusion import Fused
from server.prediction import confidence

N_SHARES = 20
"""Shares of the rows, evenly spaced, for which there is a threshold."""


def selective(fused: Fused, y: NDArray[np.int64]) -> list[dict[str, float]]:
    """The accuracy of what is answered when it abstains below a confidence: all rows first, then ever surer ones.

    By `threshold`: `share` of the rows that are answered, `accuracy` on these. One less accuracy by share is the
    risk-coverage curve (El-Yaniv & Wiener 2010).
    """
    sure, right = confidence(fused), fused.labels == y
    quantiles = np.quantile(sure, np.arange(1, N_SHARES) / N_SHARES, method="lower")
    found = []
    # With the digits that a person would ask for; a last one may round to above all.
    for threshold in dict.fromkeys([0.0, *(float(f"{value:.6g}") for value in quantiles)]):
        answered = sure >= threshold
        if answered.any():
            share, accuracy = float(answered.mean()), float(right[answered].mean())
            found.append({"threshold": threshold, "share": share, "accuracy": accuracy})
    return found
