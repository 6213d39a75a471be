"""Comparisons: one network, trained in several ways, told apart by what comes of each."""

from export.compare.activations import compare_activations
from export.compare.regularisation import compare_regularisation

__all__ = ["compare_activations", "compare_regularisation"]
