import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from export.evaluating import asked
from export.evaluating.record import evaluate_ensemble
from export.own.rows import OwnRows
from export.page.evaluated import default_answer, p_value, render, told_of_differences
from export.page.frontier import on_front
from export.page.metrics import difference, interval, value
from server.manifest import InputSpec
from server.repository import load_version
from tests import tiny


class _Text(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _record(folder: Path, other: Path, y: Any, classes: list[str]) -> dict[str, Any]:
    own = OwnRows(Path("t.npz"), [InputSpec(name="x", shape=[4])], tiny.rows(len(y)), y, classes, "t.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asked, "REPEATS", 5)
        progress = Progress(console=Console(quiet=True))
        return evaluate_ensemble(load_version(folder), own, other=load_version(other), progress=progress)


@pytest.fixture(scope="module", name="record")
def _classified(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("models")
    y = tiny.answers(tiny.rows(200), 3).mean(axis=0).argmax(axis=1)
    other = tiny.write_ensemble(root, n_members=1, name="plain")
    return _record(tiny.write_cascade(root), other, y, tiny.CLASSES)


@pytest.fixture(scope="module", name="values")
def _regressed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("models")
    y = tiny.values(tiny.rows(200), 3).mean(axis=0).astype(np.float64)
    other = tiny.write_regression(root, n_members=1, version=2)
    return _record(tiny.write_regression(root), other, y, [])


def test_it_needs_no_network_and_no_scripts(record: dict[str, Any]) -> None:
    page = render(record)
    assert "<script" not in page
    assert not re.search(r"""(src|href)\s*=\s*["']?https?:""", page)
    assert "prefers-color-scheme: dark" in page
    assert render(record) == page


def test_everything_has_its_place(record: dict[str, Any]) -> None:
    page = render(record)
    text = " ".join(_Text(page).text)
    for title in (
        "Summary",
        "Against plain 1",
        "What accuracy costs",
        "Strategies and members",
        "Fewer members",
        "Thresholds of the cascade",
        "Answering fewer rows",
        "Can its confidence be trusted?",
        "What is taken for what",
        "What the figures rest on",
    ):
        assert title in text
    for one in record["answers"]:
        if one["kind"] != "cascade":
            assert one["name"] in text
    assert value("accuracy", default_answer(record)["scores"]["accuracy"]["value"]) in text
    assert told_of_differences(record["against"]["differences"]) in text
    assert all("aria-label=" in plot for plot in re.findall(r"<svg[^>]*>", page))


def test_a_regression_has_no_labels(values: dict[str, Any]) -> None:
    text = " ".join(_Text(render(values)).text)
    assert "What RMSE costs" in text
    assert "R²" in text
    for title in ("Answering fewer rows", "confidence be trusted", "taken for what", "McNemar", "points"):
        assert title not in text


def test_without_another_there_is_no_comparison(record: dict[str, Any]) -> None:
    alone = {key: found for key, found in record.items() if key != "against"}
    assert "Against" not in " ".join(_Text(render(alone)).text)


def test_names_are_escaped(record: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>"
    assert "<script" not in render({**record, "description": evil, "notes": [evil], "folder": evil})


def test_differences_are_told_by_their_verdict() -> None:
    def found(low: float, at: float, high: float, p: float, verdict: str) -> dict[str, Any]:
        return {"difference": {"value": at, "low": low, "high": high}, "p_value": p, "verdict": verdict}

    assert told_of_differences(
        {
            "accuracy": found(0.001, 0.0042, 0.0075, 0.004, "better"),
            "log_loss": found(-0.04, -0.03, -0.02, 0.0009995, "better"),
            "ece": found(-0.01, 0.005, 0.02, 0.32, "no real difference"),
            "cost_us": found(380, 390, 401, 1e-12, "worse"),
        }
    ) == (
        "Better: accuracy by 0.42 points (+0.10 to +0.75, p 0.004) and log-loss by 0.0300 (−0.0400 to −0.0200, p below "
        "0.001). Worse: cost by 390 µs (+380 to +401, p below 0.001). No real difference: ECE (−0.0100 to +0.0200, "
        "p 0.320)."
    )


def test_figures_are_as_a_reader_wants_them() -> None:
    assert [value("rmse", figure) for figure in (0, 0.012345678, 1.5, 52341.12)] == [
        "0.0000",
        "0.012346",
        "1.5000",
        "52341",
    ]
    assert value("accuracy", 0.93021) == "0.9302"
    assert difference("accuracy", -0.0123) == "−1.23"
    assert difference("cost_us", 3.14159) == "+3.14"
    assert interval("r2", {"value": 0.5, "low": 0.4, "high": 0.6}) == "0.5000 (0.4000 to 0.6000)"
    assert [p_value({"p_value": p}) for p in (1, 0.0421, 0.0009)] == ["1.000", "0.042", "below 0.001"]


def test_the_front_is_what_none_beats_in_both() -> None:
    def one(name: str, cost: float, accuracy: float) -> dict[str, Any]:
        return {"name": name, "cost_us": cost, "scores": {"accuracy": {"value": accuracy}, "rmse": {"value": accuracy}}}

    answers = [one("cheap", 1, 0.8), one("dear", 9, 0.9), one("beaten", 5, 0.7), one("middle", 4, 0.85)]
    assert [found["name"] for found in on_front(answers, "accuracy")] == ["cheap", "middle", "dear"]
    assert [found["name"] for found in on_front(answers, "rmse")] == ["cheap", "beaten"]
