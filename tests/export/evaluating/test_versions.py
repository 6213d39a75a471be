import os
from pathlib import Path

import pytest

from export.errors import InvalidModel
from export.evaluating.versions import find_other, find_version, open_version
from tests import tiny


@pytest.fixture(scope="module", name="models")
def _models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for version in (1, 2, 10):
        tiny.write_ensemble(root, n_members=1, version=version)
    tiny.write_ensemble(root, n_members=1, name="lone")
    return root


def test_a_version_is_found_by_its_folder_its_ensembles_and_by_name(models: Path) -> None:
    elsewhere = models / "nowhere"
    assert find_version(str(models / "tiny" / "2"), elsewhere) == models / "tiny" / "2"
    assert find_version(str(models / "tiny"), elsewhere) == models / "tiny" / "10"
    assert find_version("tiny", models) == models / "tiny" / "10"
    assert find_version("tiny/1", models) == models / "tiny" / "1"


def test_a_folder_may_be_named_from_within(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models / "tiny" / "2")
    assert find_version(".", models) == models / "tiny" / "2"
    assert find_version("..", models) == models / "tiny" / "10"
    monkeypatch.chdir(models / "tiny")
    assert find_version("1", models) == models / "tiny" / "1"
    assert open_version(find_version("1", models)).manifest.version == 1


def test_the_other_is_a_number_of_the_same_ensemble_or_named_alike(models: Path) -> None:
    first = models / "tiny" / "2"
    assert find_other("1", first, models) == models / "tiny" / "1"
    assert find_other("lone", first, models) == models / "lone" / "1"
    assert find_other(str(models / "tiny"), first, models) == models / "tiny" / "10"


def test_what_is_not_there_is_told(models: Path) -> None:
    with pytest.raises(InvalidModel) as caught:
        find_version("nobody", models)
    assert caught.value.message == (
        "nobody: expected the folder of a version or of an ensemble, or NAME or NAME/VERSION of one in "
        f"{models}; there is none"
    )
    with pytest.raises(InvalidModel) as caught:
        find_other("3", models / "tiny" / "2", models)
    assert caught.value.message == f"--against 3: expected a version of {models / 'tiny'}, which has 1, 2, 10"


def test_a_version_that_no_server_would_load_is_refused_in_its_words(tmp_path: Path) -> None:
    folder = tiny.write_ensemble(tmp_path, n_members=1)
    os.truncate(folder / "m1.onnx", 10)
    with pytest.raises(InvalidModel) as caught:
        open_version(folder)
    assert caught.value.message.startswith(f"{folder / 'm1.onnx'}: expected ")
    assert caught.value.message.endswith(" bytes, got 10")
