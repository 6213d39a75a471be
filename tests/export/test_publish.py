from pathlib import Path

import numpy as np
import pytest

from export.errors import PublishError
from export.publish import list_files, make_vectors, next_version, publish
from server.manifest import VECTORS_FILE, InputSpec, Manifest
from server.repository import Repository
from tests import tiny

N = 2
SPECS = [InputSpec(name="X", shape=[tiny.N_FEATURES])]


def _files() -> dict[str, bytes]:
    files = {f"m{k + 1}.onnx": tiny.linear_member(w) for k, w in enumerate(tiny.coefficients(N))}
    x = tiny.rows(8)
    return {**files, VECTORS_FILE: make_vectors(SPECS, x, tiny.answers(x, N)), "README.md": b"# tiny\n"}


def _manifest(files: dict[str, bytes], version: int = 1) -> Manifest:
    listed = [file.model_dump() for file in list_files(files)]
    return Manifest.model_validate({**tiny.manifest(N, version=version), "files": listed})


def test_what_is_published_is_what_a_server_loads(tmp_path: Path) -> None:
    files = _files()
    folder = publish(tmp_path / "models", _manifest(files), files)
    assert folder == tmp_path / "models" / "tiny" / "1"
    ensemble = Repository.load(tmp_path / "models").get("tiny")
    x = tiny.rows(3, seed=9)
    np.testing.assert_allclose(ensemble.run(x), tiny.answers(x, N), atol=1e-6)
    assert ensemble.manifest == _manifest(files)


def test_nothing_but_the_version_is_left_in_the_repository(tmp_path: Path) -> None:
    files = _files()
    publish(tmp_path, _manifest(files), files)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["1"]


def test_a_published_version_is_never_changed(tmp_path: Path) -> None:
    files = _files()
    folder = publish(tmp_path, _manifest(files), files)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["README.md"] = b"# another\n"
    with pytest.raises(PublishError, match="a published version is never changed"):
        publish(tmp_path, _manifest(files), files)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("fault", ["vectors", "graph", "unlisted"])
def test_what_does_not_verify_is_not_published(tmp_path: Path, fault: str) -> None:
    files = _files()
    if fault == "vectors":
        files[VECTORS_FILE] = make_vectors(SPECS, tiny.rows(8), tiny.answers(tiny.rows(8, seed=5), N))
    if fault == "graph":
        files["m1.onnx"] = b"no graph"
    manifest = _manifest(files)
    if fault == "unlisted":
        files["more.txt"] = b"?"
    with pytest.raises(PublishError, match="does not verify: "):
        publish(tmp_path, manifest, files)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("export.publish.load_version", interrupt)
    files = _files()
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path, _manifest(files), files)
    assert list(tmp_path.iterdir()) == []


def test_versions_count_up_from_one_over_gaps(tmp_path: Path) -> None:
    assert next_version(tmp_path, "tiny") == 1
    for version in (1, 4):
        files = _files()
        publish(tmp_path, _manifest(files, version), files)
    assert next_version(tmp_path, "tiny") == 5
    assert next_version(tmp_path, "other") == 1
