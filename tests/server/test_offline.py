import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.engine import Engine
from server.offline import add_arguments, find_files, run
from server.prediction import Prediction
from tests.tiny import CLASSES, picture_answers, table_answers, write_picture_ensemble, write_table_ensemble

PIXELS = np.random.default_rng(3).integers(0, 256, (9, 2, 2)).astype(np.uint8)
EXPECTED = picture_answers(PIXELS, 2).mean(axis=0)

Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    write_picture_ensemble(root, max_batch_size=4)
    write_picture_ensemble(root, version=2, default_strategy="max")
    write_table_ensemble(root)
    return root


@pytest.fixture
def predict(models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Runs the command for an ensemble; returns the exit code and what it wrote to both streams."""
    monkeypatch.setenv("COMMITTEE_MODELS", str(models))

    def call(*arguments: object, ensemble: str = "pictures") -> tuple[int, str, str]:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        code = run(parser.parse_args([*map(str, arguments), "--ensemble", ensemble]))
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures 0 to 2, the last one in a folder of its own, and a file that is none."""
    root = tmp_path / "pictures"
    (root / "c").mkdir(parents=True)
    for name, pixels in zip(("a.png", "b.PNG", "c/d.webp"), PIXELS, strict=False):
        Image.fromarray(pixels).save(root / name, lossless=True)
    (root / "notes.txt").write_text("none")
    return root


def parse(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_table_of_a_folder(predict: Predict, folder: Path) -> None:
    code, out, err = predict(folder, "--version", 1)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["file", "row", "label", "confidence"]
    assert [line[:2] for line in lines[1:]] == [[str(folder / name), "0"] for name in ("a.png", "b.PNG", "c/d.webp")]
    for line, row in zip(lines[1:], EXPECTED, strict=False):
        assert line[2] == CLASSES[row.argmax()]
        assert float(line[3]) == pytest.approx(row.max(), abs=1e-4)


def test_json_of_many_files(predict: Predict, folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", PIXELS)
    (tmp_path / "c.csv").write_text("1,2,3,4\n5,6,7,8\n")
    (tmp_path / "d.json").write_text(json.dumps({"instances": [[1, 2, 3, 4]], "detail": ["members"]}))
    files = [folder / "a.png", tmp_path / "b.npy", tmp_path / "c.csv", tmp_path / "d.json"]
    code, out, _ = predict(*files, "--output", "json", "--version", 1)
    assert code == 0
    rows = parse(out)
    assert [(row["file"], row["row"]) for row in rows] == [
        (str(files[0]), 0),
        *((str(files[1]), i) for i in range(9)),
        (str(files[2]), 0),
        (str(files[2]), 1),
        (str(files[3]), 0),
    ]
    np.testing.assert_allclose([row["probabilities"] for row in rows[1:10]], EXPECTED, atol=1e-6)
    assert rows[10]["probabilities"] == rows[12]["probabilities"]
    assert "members" not in rows[10]
    assert list(rows[12]["members"]) == ["m1", "m2"]


def test_npy(predict: Predict, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", PIXELS)
    code, out, err = predict(tmp_path / "in.npy", "--output", "npy", "--out", tmp_path / "out.npy", "--version", 1)
    assert (code, out, err) == (0, "", "")
    answer = np.load(tmp_path / "out.npy")
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, EXPECTED, atol=1e-6)
    assert not list(tmp_path.glob(".out*"))


def test_the_options(predict: Predict, folder: Path) -> None:
    asked = ["--strategy", "weighted", "--weights", "m2:1", "--members", "m2", "--output", "json"]
    _, out, _ = predict(folder / "a.png", *asked)
    np.testing.assert_allclose(parse(out)[0]["probabilities"], picture_answers(PIXELS[:1], 2)[1, 0], atol=1e-6)
    assert predict(folder / "a.png")[1] != predict(folder / "a.png", "--version", 1)[1]


def test_rows_of_a_table(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("age,job\n41,nurse\n,cook\n")
    _, out, _ = predict(tmp_path / "a.csv", "--output", "json", ensemble="people")
    tensors = {
        "age": np.array([[41], [np.nan]], dtype=np.float32),
        "job": np.array([["nurse"], ["cook"]], dtype=object),
    }
    expected = table_answers(tensors, 2).mean(axis=0)
    np.testing.assert_allclose([row["probabilities"] for row in parse(out)], expected, atol=1e-6)


def test_batches_hold_what_can_be_answered_together(
    predict: Predict, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    infer = Engine.infer

    async def spy(self: Engine, ensemble: Any, rows: Any, options: Any) -> Prediction:
        sizes.append((len(rows), options.strategy))
        return await infer(self, ensemble, rows, options)

    monkeypatch.setattr(Engine, "infer", spy)
    np.save(tmp_path / "in.npy", PIXELS)
    (tmp_path / "vote.json").write_text(json.dumps({"instances": [[1, 2, 3, 4]], "strategy": "vote"}))
    predict(folder, tmp_path / "in.npy", tmp_path / "vote.json", folder / "a.png", "--version", 1)
    assert sizes == [(3, None), (4, None), (4, None), (1, None), (1, "vote"), (1, None)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope.png"], "nope.png: No such file or directory"),
        (
            ["notes.txt"],
            "notes.txt: expected .png, .jpg, .jpeg, .webp, .npy, .csv, .json, or a folder; got another kind",
        ),
        (["empty"], "empty: expected a folder with pictures, .png, .jpg, .jpeg, .webp; got one without"),
        (["a.png", "bad.png"], "bad.png: picture: expected image/png; got bytes that do not begin like it"),
        (["a.png", "bad.csv"], "bad.csv: line 1: expected 4 numbers; got 1 fields"),
        (["vote.json", "--strategy", "max"], "vote.json: strategy: given twice, and differently"),
        (["a.png", "--strategy", "nope"], "strategy: expected one of average, "),
        (["a.png", "--weights", "1"], "options: weights: expected name:number"),
        (["a.png", "--version", "9"], "{models}/pictures: expected one of the versions [9], got [1, 2]"),
        (["a.png", "--output", "npy"], "--output npy needs a file to write: --out FILE"),
        (["a.png", "--out", "no/such/folder"], "no/such/.folder"),
        (["a.png", "--models", "empty"], "empty: expected at least one ensemble"),
        (["a.png", "--default", "nope"], "{models}: no ensemble 'nope'; there are: people, pictures"),
    ],
)
def test_errors(
    predict: Predict, models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    (folder / "bad.png").write_text("none")
    (folder / "bad.csv").write_text("1")
    (folder / "vote.json").write_text(json.dumps({"instances": [[1, 2, 3, 4]], "strategy": "vote"}))
    ensemble = "nope" if "nope" in arguments and "--default" in arguments else "pictures"
    code, out, err = predict(*arguments, ensemble=ensemble)
    assert (code, out) == (1, "")
    assert err.startswith(f"committee-server predict: {said.format(models=models)}")
    assert err.count("\n") == 1


def test_nothing_is_half_written(predict: Predict, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("before")
    (folder / "e.png").write_text("none")
    code, out, _ = predict(folder, "--output", "json", "--out", target)
    assert (code, out, target.read_text()) == (1, "", "before")
    (folder / "e.png").unlink()
    assert predict(folder, "--output", "json", "--out", target)[0] == 0
    assert len(parse(target.read_text())) == 3


def test_a_failure_to_write_leaves_nothing(predict: Predict, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    assert predict(folder, "--out", target)[0] == 1
    assert not list(tmp_path.glob(".out*"))
    assert predict(folder, "--out", "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()


def test_find_files_keeps_what_is_named_in_order(folder: Path) -> None:
    named = [folder / "c" / "d.webp", folder / "a.png"]
    assert find_files(named) == named


def test_names_that_no_terminal_can_show(predict: Predict, folder: Path) -> None:
    (folder / "a.png").rename(folder / "\x1b[2J\udcff.png")
    assert "/?[2J?.png" in predict(folder)[1]
    assert parse(predict(folder, "--output", "json")[1])[0]["file"].endswith("/\x1b[2J\ufffd.png")


def test_progress_is_shown_to_people(predict: Predict, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert predict(folder)[0] == 0
    assert "predicting" in terminal.getvalue()
