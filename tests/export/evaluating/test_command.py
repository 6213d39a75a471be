import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.__main__ import main
from export.errors import PublishError
from export.evaluating import asked
from export.evaluating.command import write
from tests import tiny


@pytest.fixture(scope="module", name="models")
def _models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny.write_cascade(root, name="tiny")
    tiny.write_ensemble(root, n_members=1, version=2)
    tiny.write_regression(root)
    return root


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    path = tmp_path / "t.npz"
    x = tiny.rows(100, seed=2)
    np.savez(path, x=x, y=np.array(tiny.CLASSES)[tiny.answers(x, 3).mean(axis=0).argmax(axis=1)])
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "REPEATS", 5)


def _evaluate(*arguments: Any) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_a_version_is_evaluated_and_page_and_numbers_are_printed(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    options = ("--models", models, "--data", data, "--against", 2, "--threshold", 0.85, "--members", "m1,m3")
    assert _evaluate("tiny/1", *options) == 0
    captured = capsys.readouterr()
    folder = Path("runs/evaluations/tiny-1")
    assert captured.out == f"{folder / 'evaluation.html'}\n{folder / 'evaluation.json'}\n"
    record = json.loads((folder / "evaluation.json").read_bytes())
    assert (record["ensemble"], record["version"], record["against"]["version"]) == ("tiny", 1, 2)
    assert [one["name"] for one in record["answers"] if one["kind"] == "subset"] == ["m1 + m3"]
    assert (folder / "evaluation.html").read_text().lstrip().startswith("<!doctype html>")
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.html", "evaluation.json"]
    shown = captured.err
    assert "cascade (default)" in shown
    assert "members by average" in shown
    assert "cascade 0.85" in shown
    assert "tiny 1 by cascade against tiny 2 by average" in shown


def test_an_ensemble_alone_means_its_highest_version(
    models: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a" / "b"
    assert _evaluate(models / "tiny", "--data", data, "--out", out) == 0
    assert capsys.readouterr().out == f"{out / 'evaluation.html'}\n{out / 'evaluation.json'}\n"
    assert json.loads((out / "evaluation.json").read_bytes())["version"] == 2


def test_a_regression_is_evaluated(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = tiny.rows(60)
    np.savez(tmp_path / "v.npz", x=x, y=tiny.values(x, 3).mean(axis=0))
    assert _evaluate("regression", "--models", models, "--data", tmp_path / "v.npz", "--out", tmp_path / "out") == 0
    assert "mean (default)" in capsys.readouterr().err
    assert "RMSE" in (tmp_path / "out" / "evaluation.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("nobody",),
            "nobody: expected the folder of a version or of an ensemble, or NAME or NAME/VERSION of one in {models}; "
            "there is none",
        ),
        (("tiny/1", "--against", 7), "--against 7: expected a version of {models}/tiny, which has 1, 2"),
        (
            ("tiny/1", "--members", "m4"),
            "--members m4: {models}/tiny/1: members: expected some of m1, m2, m3; got 'm4'",
        ),
        (("tiny/2", "--threshold", 0.9), "--threshold: expected an ensemble with a cascade; {models}/tiny/2 has none"),
        (("tiny/1", "--target", "z"), "{data}: expected one array named z, got x, y"),
        (("regression",), "{data}: the targets: expected finite numbers, got <U5"),
        (
            ("tiny/1", "--against", "regression"),
            "--against {models}/regression/1: expected a classification with the classes or targets of "
            "{models}/tiny/1, red, green, blue; got a regression with price",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(
    models: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[Any, ...],
    message: str,
) -> None:
    out = tmp_path / "out"
    assert _evaluate(*arguments, "--models", models, "--data", data, "--out", out) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip() == f"committee-export: {message.format(models=models, data=data)}"
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder_is_told_at_once(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.write_text("")
    assert _evaluate("tiny", "--models", models, "--data", tmp_path / "none.npz", "--out", out) == 1
    assert capsys.readouterr().err.strip() == (
        f"committee-export: {out}: expected a folder, or nothing, to write to; got a file"
    )


@pytest.mark.parametrize("text", ["1.5", "-0.1", "high", "nan"])
def test_a_threshold_is_a_share(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _evaluate("tiny", "--data", "t.npz", f"--threshold={text}")
    assert f"--threshold: expected a number from 0 to 1, got '{text}'" in capsys.readouterr().err


def test_a_member_that_fails_is_one_line(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its test vectors replay; of longer rows it makes infinities."""
    folder = tiny.write_ensemble(tmp_path, n_members=1)
    x = tiny.rows(10)
    x[7] = 3e38
    np.savez(data, x=x, y=np.zeros(10, dtype=int))
    assert _evaluate(folder, "--data", data, "--out", tmp_path / "out") == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == f"committee-export: {folder}: member 'm1': expected a distribution, got for row 7 [nan nan nan]"
    assert not (tmp_path / "out").exists()


def test_files_are_written_all_or_none(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_text("")
    with pytest.raises(PublishError) as caught:
        write(tmp_path / "b" / "file" / "out", {"a": b"1"})
    assert caught.value.message == f"{tmp_path / 'b' / 'file' / 'out'}: cannot be written: Not a directory"
    out = tmp_path / "out"
    (out / "c").mkdir(parents=True)
    with pytest.raises(PublishError) as caught:
        write(out, {"a": b"1", "c": b"2"})
    assert caught.value.message == f"{out / 'c'}: expected a file, or nothing, to write to; got a folder"
    assert [path.name for path in out.iterdir()] == ["c"]
    (out / "c").rmdir()
    write(out, {"a": b"1", "c": b"2"})
    write(out, {"a": b"3", "c": b"4"})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {"a": b"3", "c": b"4"}
