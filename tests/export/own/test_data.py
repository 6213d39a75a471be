from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import InvalidData
from export.own.data import load_own_data


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("y,colour,size\n" + "no,red,1\nyes,blue,\n" * 20)
    dataset = load_own_data(path)
    assert (dataset.name, dataset.classes) == ("own", ["no", "yes"])
    assert [spec.name for spec in dataset.inputs] == ["colour", "size"]
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.calibration, dataset.test)] == [
        0,
        20,
        8,
        12,
    ]
    by_size = load_own_data(path.rename(tmp_path / "OWN.CSV"), target="colour", seed=1)
    assert by_size.classes == ["blue", "red"]


def test_arrays(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, x=np.random.default_rng(0).random((40, 3)), y=np.arange(40) % 2, z=np.arange(40) % 4)
    assert load_own_data(path).classes == ["0", "1"]
    assert load_own_data(path, target="z").classes == ["0", "1", "2", "3"]


def test_pictures(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for place in range(10):
            Image.new("L", (4, 4), place + (name == "dogs") * 100).save(tmp_path / name / f"{place}.png")
    dataset = load_own_data(tmp_path)
    assert (dataset.name, dataset.classes) == (tmp_path.name, ["cats", "dogs"])
    assert dataset.validation.x.shape == (10, 4, 4, 1)
    with pytest.raises(InvalidData, match="expected no target for a folder, whose subfolders are the classes; got 'y'"):
        load_own_data(tmp_path, target="y")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"the subfolders: expected two classes or more, got \[\]"):
        load_own_data(tmp_path)


@pytest.mark.parametrize("name", ["own.xlsx", "own", "own.npy"])
def test_other_files_are_told_what_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InvalidData, match=r"expected a \.csv, an \.npz, or a folder with a subfolder of pictures a class"
    ):
        load_own_data(tmp_path / name)
