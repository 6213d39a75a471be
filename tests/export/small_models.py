"""Small trained models of strangers, and their data, for the tests of packing."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.datasets import Dataset, Split
from server.manifest import InputSpec
from server.rows import join_tensors

N = 600
COLUMNS = ("age", "hours per week", "job", "town")
TABLE_SPECS = [
    InputSpec(name="age", shape=[1]),
    InputSpec(name="hours per week", shape=[1]),
    InputSpec(name="job", shape=[1], datatype="BYTES", categories=["clerk", "nurse", "smith"]),
    InputSpec(name="town", shape=[1], datatype="BYTES", categories=["x", "y", "z"]),
]


def vectors(offset: float = 0.0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`(600, 4)` numbers about `offset` and labels of three classes that depend on them."""
    generator = np.random.default_rng(0)
    x = generator.normal(0, 1, (N, 4)) * [1, 2, 5, 0.1]
    y = (x[:, 0] + 0.3 * generator.normal(size=N) > 0).astype(np.int64) + (x[:, 1] > 1)
    return (x + offset).astype(np.float32), y


def of_vectors(offset: float = 0.0, classes: Sequence[str] = ("a", "b", "c")) -> Dataset:
    """The later half of `vectors`: no train rows."""
    x, y = vectors(offset)
    return _parted(x[N // 2 :], y[N // 2 :], [InputSpec(name="x", shape=[4])], list(classes))


@cache
def frame() -> Any:
    """A table of pandas: two columns of numbers, two of text, some values missing, and the income, `high` or `low`."""
    import pandas

    generator = np.random.default_rng(0)
    rows = pandas.DataFrame(
        {
            "age": generator.normal(40, 10, N).round(1),
            "hours per week": generator.integers(1, 80, N).astype(float),
            "job": generator.choice(["clerk", "nurse", "smith"], N).astype(object),
            "town": generator.choice(["x", "y", "z"], N).astype(object),
        }
    )
    score = (rows["hours per week"] - 40) / 20 + (rows.job == "nurse") * 1.5 + generator.normal(0, 0.5, N)
    rows["income"] = np.where(score > 0.4, "high", "low")
    rows.loc[::9, "age"] = np.nan
    rows.loc[::11, "job"] = np.nan
    return rows


def of_table(specs: Sequence[InputSpec] = TABLE_SPECS) -> Dataset:
    """The later half of `frame`, as rows of a table."""
    rows = frame()[N // 2 :]
    tensors = {
        spec.name: (
            rows[spec.name].fillna("").to_numpy(object) if spec.datatype == "BYTES" else rows[spec.name].to_numpy("f4")
        ).reshape(-1, 1)
        for spec in specs
    }
    y = (rows.income == "low").to_numpy().astype(np.int64)
    return _parted(join_tensors(tensors, specs), y, list(specs), ["high", "low"])


def _parted(x: NDArray[Any], y: NDArray[np.int64], inputs: list[InputSpec], classes: list[str]) -> Dataset:
    third = len(x) // 3
    parts = [Split(x[start : start + third], y[start : start + third]) for start in (0, third, 2 * third)]
    return Dataset("strangers", classes, inputs, Split(x[:0], y[:0]), *parts)


def pipeline(final: Any, *, encoder: Any = None, names: Sequence[str] = ("age", "hours per week")) -> Any:
    """The usual one over named columns, fitted on the earlier half of `frame`."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder or OneHotEncoder(handle_unknown="ignore"))
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    model = make_pipeline(make_column_transformer((numbers, list(names)), (texts, ["job", "town"])), final)
    rows = frame()[: N // 2]
    return model.fit(rows[list(COLUMNS)], rows.income)
