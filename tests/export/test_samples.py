from itertools import chain

import numpy as np
import pytest

from export.datasets import Dataset
from export.errors import InvalidData
from export.samples import Samples, index_labels, part
from server.manifest import InputSpec


def _samples(y: list[int], classes: list[str], x: list[int] | None = None) -> Samples:
    rows = np.array(range(len(y)) if x is None else x, dtype=np.float32)[:, None]
    spec = InputSpec(name="x", shape=[1])
    return Samples([spec], rows, np.array(y, dtype=np.int64), classes, "own.npz: the labels")


def _values(dataset: Dataset) -> dict[str, list[float]]:
    return {name: getattr(dataset, name).x.ravel().tolist() for name in ("validation", "calibration", "test")}


@pytest.mark.parametrize(
    ("labels", "classes", "y"),
    [
        (["b", "a", "B"], ["B", "a", "b"], [2, 1, 0]),
        (["10", "9", "+9", "9.0"], ["9", "10"], [1, 0, 0, 0]),
        (["1e1", "-0.5"], ["-0.5", "10"], [1, 0]),
        (["10", "9", "x"], ["10", "9", "x"], [0, 1, 2]),
    ],
)
def test_labels_are_sorted_as_numbers_if_all_are(labels: list[str], classes: list[str], y: list[int]) -> None:
    found, names = index_labels(labels)
    assert names == classes
    assert found.tolist() == y
    assert found.dtype == np.int64


def test_every_class_is_split_half_a_fifth_and_the_rest() -> None:
    dataset = part(_samples([0] * 100 + [1] * 10, ["a", "b"]), name="own", seed=0, keep_together=True)
    assert dataset.name == "own"
    assert len(dataset.train) == 0
    assert dataset.train.x.shape == (0, 1)
    counts = [np.bincount(split.y).tolist() for split in (dataset.validation, dataset.calibration, dataset.test)]
    assert counts == [[50, 5], [20, 2], [30, 3]]
    assert sorted(chain(*_values(dataset).values())) == list(range(110))


def test_the_seed_decides_the_splits() -> None:
    samples = _samples([0, 1] * 20, ["a", "b"])
    one, same, other = (part(samples, name="own", seed=seed, keep_together=False) for seed in (3, 3, 4))
    assert _values(one) == _values(same) != _values(other)


@pytest.mark.parametrize("keep_together", [True, False])
def test_equal_rows_share_a_split_if_they_are_to(keep_together: bool) -> None:
    x = [value // 4 for value in range(120)]
    dataset = part(_samples([0] * 60 + [1] * 60, ["a", "b"], x), name="own", seed=0, keep_together=keep_together)
    validation, calibration, test = (set(values) for values in _values(dataset).values())
    apart = validation.isdisjoint(calibration) and validation.isdisjoint(test) and calibration.isdisjoint(test)
    assert apart is keep_together


def test_a_class_with_few_rows_is_refused() -> None:
    samples = _samples([0] * 20 + [1] * 9 + [2] * 2, ["a", "b", "c"])
    with pytest.raises(InvalidData) as caught:
        part(samples, name="own", seed=0, keep_together=False)
    assert caught.value.message == (
        "own.npz: the labels: expected at least 10 different rows of each class, got 9 of 'b'; "
        "so it is with 2 of 3 classes"
    )


def test_copies_do_not_count() -> None:
    samples = _samples([0] * 20 + [1] * 20, ["a", "b"], [*range(20), *[99] * 20])
    part(samples, name="own", seed=0, keep_together=False)
    with pytest.raises(InvalidData, match="got 1 of 'b'"):
        part(samples, name="own", seed=0, keep_together=True)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a"], r"expected two classes or more, got \['a'\]"),
        (["a", "b" * 257], "expected class names of 1 to 256 characters, got 'bbb"),
    ],
)
def test_classes_that_no_manifest_holds_are_refused(classes: list[str], message: str) -> None:
    y = list(range(len(classes))) * 20
    with pytest.raises(InvalidData, match=message):
        part(_samples(y, classes), name="own", seed=0, keep_together=False)
