"""What training a member leaves behind, or a file holds, whatever its family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import onnx
from numpy.typing import NDArray

from server.rows import Rows


@dataclass(frozen=True, slots=True)
class Splits:
    """The inner nodes of a member's trees: node `i` compares feature `features[i]` with `thresholds[i]`.

    `features` `(k,)` int64 index the flattened row, or the columns of a table; `thresholds` `(k,)` float64; `rows`
    `(k,)` int64 name for each node one of the data set's `base_rows` that comes by it.
    """

    features: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def joined(cls, trees: "list[Splits]") -> Self:
        return cls(
            np.concatenate([tree.features for tree in trees]),
            np.concatenate([tree.thresholds for tree in trees]),
            np.concatenate([tree.rows for tree in trees]),
        )


@dataclass(frozen=True, slots=True)
class Lossy:
    """How far a graph may be from its source where it is not meant to answer the very same, as a quantised one."""

    tolerance: float
    """Of accuracy on the validation rows: a share of them."""
    drift: float
    """Of any probability of any row."""


@dataclass(frozen=True, slots=True)
class TrainedMember:
    """A trained model behind what export needs of it.

    `predict_proba` is the source model's own answer, `(n, n_classes)` of float32 or float64, rows sum to 1.
    `to_onnx` converts it and keeps the contract of `export.convert`.
    `logits` `(n, n_classes)` float64 are what the softmax sees, where they grow with the input without bound; None for
    trees, whose answer is one of finitely many, and where nobody can tell them.
    `splits` is None for a model without trees, and for trees that see the rows only through something else.
    `smooth` says that the answer moves with the input, as that of a network does; that of trees goes in steps.
    `lossy` is None for a member whose graph must answer what the source answers.
    `record` is what making it has shown, ready for JSON: curves, results of cross-validation, widths.
    `files` are what other members can be made of, by file name, such as `model.keras`.
    """

    name: str
    framework: str
    """And its version: `keras 3.15.1`."""
    predict_proba: Callable[[Rows], NDArray[Any]]
    to_onnx: Callable[[], onnx.ModelProto]
    logits: Callable[[Rows], NDArray[np.float64]] | None = None
    splits: Splits | None = None
    smooth: bool = False
    lossy: Lossy | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def tree_splits(
    left: NDArray[Any], right: NDArray[Any], features: NDArray[Any], thresholds: NDArray[Any], leaves: NDArray[Any]
) -> Splits:
    """The splits of one tree, of those nodes that a row comes by.

    The first four are `(n_nodes,)`; `left` and `right` are the children's indices, higher than their parent's, and -1
    in a leaf. `leaves` `(n,)` is the leaf that each row ends in.
    """
    row_of = np.full(len(left), -1, dtype=np.int64)
    row_of[leaves] = np.arange(len(leaves))
    inner = np.flatnonzero(left >= 0)
    for node in inner[::-1]:
        row_of[node] = max(row_of[left[node]], row_of[right[node]])
    inner = inner[row_of[inner] >= 0]
    return Splits(features[inner].astype(np.int64), thresholds[inner].astype(np.float64), row_of[inner])
