"""What `committee-server predict` does with each option, with members that fail, and with every kind of ensemble."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.codec.options import OPTIONS
from server.offline import OPTION_HELP, add_arguments, run
from tests import faulty, tiny
from tests.faulty import HANG, NAN, RAISE
from tests.server.rest.served import SOON, write_faulty_stacked

ROWS = tiny.rows(6)
Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_faulty_stacked(root)
    faulty.write(root, on_failure="degrade", quorum=1)
    tiny.write_regression(root, targets=tiny.TARGETS)
    tiny.write_regression(root, name="odd", targets=["the price\x1b"], n_members=2)
    return root


@pytest.fixture
def predict(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Predict:
    """Runs the command over rows in `rows.npy`; returns the exit code and what it wrote to both streams."""
    monkeypatch.chdir(tmp_path)

    def call(rows: NDArray[Any], *arguments: object, of: str = "everything") -> tuple[int, str, str]:
        np.save("rows.npy", rows)
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        said = ["rows.npy", *map(str, arguments), "--models", str(models), "--ensemble", of]
        code = run(parser.parse_args(said))
        return code, *capsys.readouterr()

    return call


def lines(told: tuple[int, str, str]) -> list[dict[str, Any]]:
    """The rows of an answer in JSON."""
    code, out, err = told
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def cells(told: tuple[int, str, str]) -> list[list[str]]:
    """The lines of an answer as a table."""
    code, out, err = told
    assert (code, err) == (0, "")
    return [line.split() for line in out.splitlines()]


def test_every_option_of_a_request_is_one_of_the_command() -> None:
    assert set(OPTION_HELP) == set(OPTIONS)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [f"--{name.replace('_', '-')}=1" for name in OPTIONS]
    assert {name: getattr(parser.parse_args(["rows.npy", *words]), name) for name in OPTIONS} == dict.fromkeys(
        OPTIONS, "1"
    )


# Options -------------------------------------------------------------------------------------------------------------


def test_members_that_are_left_out(predict: Predict) -> None:
    rows = lines(predict(ROWS, "--members=-m2", "--output", "json"))
    expected = tiny.answers(ROWS, 3)[[0, 2]].mean(axis=0)
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected, atol=1e-6)


def test_details(predict: Predict) -> None:
    for detail in ("members", "uncertainty", "contributions"):
        rows = lines(predict(ROWS, "--detail", detail, "--output", "json"))
        assert all(list(row) == ["file", "row", "label", "confidence", "probabilities", detail] for row in rows)
    rows = lines(predict(ROWS, "--detail", "members,contributions", "--output", "json"))
    assert all(list(row["members"]) == list(row["contributions"]) == ["m1", "m2", "m3"] for row in rows)


def test_a_cascade(predict: Predict) -> None:
    arguments = ["--strategy", "cascade", "--output", "json", "--detail", "members"]
    rows = lines(predict(ROWS, *arguments, "--cascade-threshold", "0.55"))
    sure = tiny.answers(ROWS, 3)[:2].mean(axis=0).max(axis=1) >= 0.55
    assert [row["stage"] for row in rows] == np.where(sure, 1, 2).tolist()
    assert [list(row["members"]) for row in rows] == [["m1", "m2"] if one else ["m1", "m2", "m3"] for one in sure]
    assert 0 < sure.sum() < len(ROWS)


def test_labels_that_are_left_open(predict: Predict) -> None:
    told = cells(predict(ROWS))
    some = cells(predict(ROWS, "--abstain-below", "0.55"))
    assert some[0] == told[0] == ["file", "row", "label", "confidence"]
    for line, row in zip(some[1:], told[1:], strict=True):
        assert line == [*row[:2], row[2] if float(row[3]) >= 0.55 else "-", row[3]]
    assert len({line[2] for line in some}) > 2
    rows = lines(predict(ROWS, "--abstain-below", "0.55", "--output", "json"))
    assert [row["label"] for row in rows] == [None if line[2] == "-" else line[2] for line in some[1:]]


def test_options_of_a_file_join_those_of_the_command(predict: Predict, tmp_path: Path) -> None:
    body = {"instances": ROWS[:1].tolist(), "abstain_below": 1, "members": ["-m3"], "detail": ["contributions"]}
    (tmp_path / "one.json").write_text(json.dumps(body))
    row, *others = lines(predict(ROWS[:2], "one.json", "--strategy", "median", "--output", "json"))[::-1]
    assert (row["file"], row["label"], list(row["contributions"])) == ("one.json", None, ["m1", "m2"])
    assert all(other["label"] is not None and "contributions" not in other for other in others)
    assert predict(ROWS[:2], "one.json", "--abstain-below", "0.5") == (
        1,
        "",
        "committee-server predict: one.json: abstain_below: given twice, and differently\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--detail", "all"], "detail: expected some of members, uncertainty, contributions; got the string 'all'"),
        (["--members", ""], "members: expected a value; got none"),
        (["--cascade-threshold", "2"], "cascade_threshold: expected a number from 0 to 1; got the string '2'"),
        (["--abstain-below", "x"], "abstain_below: expected a number from 0 to 1; got the string 'x'"),
        (
            ["--deadline-ms", "0"],
            "deadline_ms: expected milliseconds, above 0 and at most 3600000; got the string '0'",
        ),
        (["--quorum", "none"], "quorum: expected a whole number from 1 to 256; got the string 'none'"),
        (["--on-failure", "go"], "on_failure: expected fail or degrade; got the string 'go'"),
    ],
)
def test_options_that_are_refused(predict: Predict, arguments: list[str], said: str) -> None:
    assert predict(ROWS, *arguments) == (1, "", f"committee-server predict: options: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cascade-threshold", "0.5"],
         "cascade_threshold: expected none with strategy 'average'; it is for 'cascade'"),
        (["--members=-m4"], "members: expected some of m1, m2, m3; got 'm4'"),
        (["--strategy", "stacking", "--detail", "contributions"],
         "detail: expected no contributions with strategy 'stacking': its final estimator can leave none out"),
    ],
)  # fmt: skip
def test_what_the_ensemble_does_not_have(predict: Predict, arguments: list[str], said: str) -> None:
    assert predict(ROWS, *arguments) == (1, "", f"committee-server predict: {said}\n")


# Members that fail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "reason"), [(NAN, "invalid"), (RAISE, "raised")])
@pytest.mark.parametrize("of", ["everything", "faulty"])
def test_a_member_that_fails_ends_it_whatever_the_manifest_says(
    predict: Predict, of: str, fault: float, reason: str
) -> None:
    said = f"rows.npy: expected answers of at least 3 of 3 members; got 2 (m3: {reason})"
    assert predict(faulty.rows(4, fault), of=of) == (1, "", f"committee-server predict: {said}\n")


def test_the_message_names_the_files(predict: Predict, tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, faulty.rows(1, NAN))
    said = "rows.npy to b.npy: expected answers of at least 3 of 3 members; got 2 (m3: invalid)"
    assert predict(ROWS, "a.npy", "b.npy") == (1, "", f"committee-server predict: {said}\n")


@pytest.mark.parametrize("fault", [NAN, RAISE])
def test_it_goes_on_without_the_member_if_it_is_told_to(predict: Predict, fault: float) -> None:
    rows = faulty.rows(4, fault)
    told = lines(predict(rows, "--on-failure", "degrade", "--detail", "members", "--output", "json"))
    np.testing.assert_allclose([row["probabilities"] for row in told], tiny.answers(rows, 2).mean(axis=0), atol=1e-6)
    assert [list(row["members"]) for row in told] == [["m1", "m2"]] * 4
    said = "rows.npy: expected answers of at least 3 of 3 members; got 2 (m3: "
    code, out, err = predict(rows, "--on-failure", "degrade", "--quorum", "3")
    assert (code, out, err.startswith(f"committee-server predict: {said}")) == (1, "", True)


def test_a_file_may_say_that_it_goes_on(predict: Predict, tmp_path: Path) -> None:
    body = {"instances": faulty.rows(1, NAN).tolist(), "on_failure": "degrade"}
    (tmp_path / "one.json").write_text(json.dumps(body))
    assert len(cells(predict(ROWS, "one.json"))) == 1 + 6 + 1


def test_a_member_that_keeps_failing_is_asked_for_every_row(predict: Predict, tmp_path: Path) -> None:
    """However often it fails: what a row is answered by must not depend on the rows before."""
    for index in range(8):
        body = {"instances": faulty.rows(1, NAN).tolist(), "id": "x", "abstain_below": index / 10}
        (tmp_path / f"{index}.json").write_text(json.dumps(body))
    files = [f"{index}.json" for index in range(8)]
    (tmp_path / "last.json").write_text(json.dumps({"instances": ROWS[:1].tolist(), "detail": ["members"]}))
    told = lines(predict(ROWS, *files, "last.json", "--on-failure", "degrade", "--output", "json"))
    assert list(told[-1]["members"]) == ["m1", "m2", "m3"]


def test_a_deadline(predict: Predict) -> None:
    rows = faulty.rows(4, HANG)
    told = cells(predict(rows, "--deadline-ms", SOON, "--on-failure", "degrade"))
    assert len(told) == 1 + 4
    code, out, err = predict(rows, "--deadline-ms", SOON)
    assert (code, out) == (1, "")
    assert err in [
        f"committee-server predict: rows.npy: expected answers of at least 3 of 3 members; got 2 (m3: {reason})\n"
        for reason in ("deadline", "hanging")
    ]


# A regression --------------------------------------------------------------------------------------------------------


def test_a_table_of_a_regression_has_its_targets(predict: Predict) -> None:
    told = cells(predict(ROWS, of="regression"))
    assert told[0] == ["file", "row", "price", "weight"]
    assert [line[:2] for line in told[1:]] == [["rows.npy", str(index)] for index in range(6)]
    expected = tiny.values(ROWS, 3, 2).mean(axis=0)
    np.testing.assert_allclose(np.array(told[1:])[:, 2:].astype(float), expected, rtol=1e-5)


def test_targets_that_no_terminal_can_show(predict: Predict) -> None:
    out = predict(ROWS[:1], of="odd")[1]
    assert out.splitlines()[0] == "file      row  the price?"


def test_json_and_npy_of_a_regression(predict: Predict, tmp_path: Path) -> None:
    told = lines(predict(ROWS, "--output", "json", "--detail", "members,uncertainty,contributions", of="regression"))
    keys = ["file", "row", "values", "members", "uncertainty", "contributions"]
    assert all(list(row) == keys for row in told)
    assert predict(ROWS, "--output", "npy", "--out", "out.npy", of="regression") == (0, "", "")
    answer = np.load(tmp_path / "out.npy")
    assert (answer.shape, answer.dtype) == ((6, 2), np.float32)
    np.testing.assert_array_equal(answer, np.array([row["values"] for row in told], dtype=np.float32))


def test_what_a_regression_does_not_have(predict: Predict) -> None:
    said = "abstain_below: expected none of a regression, whose answers have no confidence"
    told = predict(ROWS, "--abstain-below", "0.5", of="regression")
    assert told == (1, "", f"committee-server predict: {said}\n")
    said = "strategy: expected one of mean, weighted, median; got 'vote', which is none of a regression"
    assert predict(ROWS, "--strategy", "vote", of="regression") == (1, "", f"committee-server predict: {said}\n")
