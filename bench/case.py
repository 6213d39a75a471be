"""One cell of the matrix of converters: a tiny model to train, and the data that it is trained and checked on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_iris

from export.adapt import AS_IT_IS, Adaptation
from export.datasets import Dataset, stratified
from export.samples import Samples, part
from server.manifest import InputSpec
from server.rows import Rows, is_table, join_tensors

Data = Literal["flowers", "two flowers", "counts", "gaps", "digits", "people", "words"]


@dataclass(frozen=True, slots=True)
class Case:
    family: str
    """The section of the page: `Keras layers`."""
    name: str
    data: Data
    save: Callable[["Training", Path], Path]
    """Trains the model on these rows, saves it into this folder as its user would, and answers the file."""
    adaptation: Adaptation = AS_IT_IS
    """What its user tells `pack` of it."""


@dataclass(frozen=True, slots=True)
class Training:
    """Rows to train on, as a framework takes them: `(n, *shape)` float32, or a DataFrame of a table; `y (n,)` int64."""

    x: Any
    y: NDArray[np.int64]
    n_classes: int


@cache
def load(data: Data) -> tuple[Training, Dataset]:
    """Half of the rows to train on, the other half as somebody's own data. The same on each call."""
    samples = _SAMPLES[data]()
    rest, taken = stratified(samples.y, (len(samples.y) // 2,), seed=0)
    own = Samples(samples.inputs, samples.x[rest], samples.y[rest], samples.classes, data)
    training = Training(_as_trained(samples, samples.x[taken]), samples.y[taken], len(samples.classes))
    return training, part(own, name=data.replace(" ", "_"), seed=0, keep_together=False)


def _as_trained(samples: Samples, rows: Rows) -> Any:
    if not is_table(samples.inputs):
        return rows
    import pandas

    return pandas.DataFrame({spec.name: rows[spec.name][:, 0] for spec in samples.inputs})


# ---- The data -------------------------------------------------------------------------------------------------------


def _flowers() -> Samples:
    """Fisher's irises: 150 rows of 4 numbers, 3 classes."""
    bunch = load_iris()
    x, y = bunch.data.astype(np.float32), bunch.target.astype(np.int64)
    return Samples([InputSpec(name="x", shape=[4])], x, y, [str(name) for name in bunch.target_names], "flowers")


def _two_flowers() -> Samples:
    """The two classes of irises that lie close together."""
    flowers = _flowers()
    kept = flowers.y > 0
    return Samples(flowers.inputs, flowers.x[kept], flowers.y[kept] - 1, flowers.classes[1:], "two flowers")


def _counts() -> Samples:
    """The irises' measurements in whole centimetres: small counts, none negative."""
    flowers = _flowers()
    x = np.floor(flowers.x)
    return Samples([InputSpec(name="x", shape=[4], low=0.0, high=7.0)], x, flowers.y, flowers.classes, "counts")


def _gaps() -> Samples:
    """The irises with a tenth of the values missing."""
    flowers = _flowers()
    x = flowers.x.copy()
    x[np.random.default_rng(0).random(x.shape) < 0.1] = np.nan
    return Samples([InputSpec(name="x", shape=[4], missing=True)], x, flowers.y, flowers.classes, "gaps")


def _digits() -> Samples:
    """scikit-learn's digits: 1,797 images of 8x8x1, 0 to 16."""
    bunch = load_digits()
    x = bunch.data.astype(np.float32).reshape(-1, 8, 8, 1)
    spec = InputSpec(name="image", shape=[8, 8, 1], low=0.0, high=16.0)
    return Samples([spec], x, bunch.target.astype(np.int64), [str(digit) for digit in range(10)], "digits")


def _people() -> Samples:
    """A made-up table: two columns of numbers, of which one has gaps, and two of text."""
    generator = np.random.default_rng(0)
    n = 400
    y = generator.integers(0, 2, n)
    age = (generator.normal(40, 10, n) + 10 * y).astype(np.float32)
    age[::10] = np.nan
    tensors: dict[str, NDArray[Any]] = {
        "age": age,
        "fare": generator.gamma(2, 10 + 20 * y).astype(np.float32),
        "sex": np.where(generator.random(n) < 0.3 + 0.4 * y, "female", "male").astype(object),
        "port": generator.choice(["Bern", "Cork", "Genève"], n).astype(object),
    }
    inputs = [
        InputSpec(name="age", shape=[1], missing=True),
        InputSpec(name="fare", shape=[1]),
        InputSpec(name="sex", datatype="BYTES", shape=[1], categories=["female", "male"]),
        InputSpec(name="port", datatype="BYTES", shape=[1], categories=["Bern", "Cork", "Genève"]),
    ]
    rows = join_tensors({name: values[:, None] for name, values in tensors.items()}, inputs)
    return Samples(inputs, rows, y.astype(np.int64), ["no", "yes"], "people")


def _words() -> Samples:
    """Made-up sentences of eight words from two moods."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 200)
    moods = np.array([["rain", "cold", "grey", "mud", "the", "a"], ["sun", "warm", "blue", "sand", "the", "a"]])
    texts = np.array([" ".join(generator.choice(moods[label], 8)) for label in y], dtype=object)
    inputs = [InputSpec(name="text", datatype="BYTES", shape=[1])]
    return Samples(inputs, join_tensors({"text": texts[:, None]}, inputs), y.astype(np.int64), ["bad", "good"], "words")


_SAMPLES: dict[Data, Callable[[], Samples]] = {
    "flowers": _flowers,
    "two flowers": _two_flowers,
    "counts": _counts,
    "gaps": _gaps,
    "digits": _digits,
    "people": _people,
    "words": _words,
}
