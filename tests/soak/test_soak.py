"""The soak for eight seconds, and what judges it."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.offered import Answer
from tests.soak.__main__ import BEGIN, END, write_docs
from tests.soak.asks import Ask, headers_of, make, read, same, write_repository
from tests.soak.plot import draw
from tests.soak.run import Found, Load, Way, soak
from tests.soak.samples import Process, Record, Sample, look_at, percentiles
from tests.soak.samples import read as read_samples
from tests.soak.verdict import Check, judge, lives

PROCESS = Process(100.0, 80.0, 40, 9)
COUNTS = {"asked": 1000, "right": 1000, "lost": 0, "wrong": 0, "degraded": 0}


def test_eight_seconds_of_it(tmp_path: Path) -> None:
    """Everything but growth, for which nobody lives long enough: what has to hold holds also on a busy machine."""
    found = soak(Way(8.0, seed=1, find=1.0), tmp_path, Console(quiet=True))
    missed = [check.name for check in found.checks if not check.held and not check.name.startswith("memory")]
    assert not missed, found.told
    samples = read_samples((tmp_path / "samples.jsonl").read_text().splitlines())
    assert samples[-1].counts["right"] > 100
    assert sum(samples[-1].hostile.values()) > 100
    events = " ".join(event for sample in samples for event in sample.events)
    assert "SIGKILL" in events
    assert "load changing" in events
    assert len({pid for sample in samples for pid in sample.workers}) >= 3
    assert (tmp_path / "soak.svg").read_text().startswith("<?xml")


def lived(memory: Sequence[float], pid: str = "1", *, fds: int = 40) -> list[Sample]:
    """A sample a second of a worker that takes so much."""
    return [
        Sample(float(at), {pid: replace(PROCESS, pss=pss, fds=fds)}, PROCESS) for at, pss in enumerate(memory, start=1)
    ]


def missed(samples: Sequence[Sample], rest: tuple[Sample, Sample] | None = None, **counts: int) -> list[str]:
    quiet = Sample(0, {"1": PROCESS}, PROCESS)
    faults: dict[str, list[str]] = {"errors": ["one"] * counts.pop("errors", 0)}
    checks = judge(samples, rest or (quiet, quiet), warm=10, counts={**COUNTS, **counts}, faults=faults)
    return [check.name for check in checks if not check.held]


def test_memory_is_judged_after_the_warm_up_over_the_workers_own_life() -> None:
    assert missed(lived([50] * 10 + [100] * 50)) == []
    assert missed(lived([100] * 10 + [100 + at * 0.2 for at in range(50)])) == ["memory, the worker that grew most"]
    assert missed(lived([100] * 60) + lived([100] * 30 + [120] * 30, "2")) == ["memory, the worker that grew most"]
    assert missed(lived([100] * 40 + [300] + [100] * 20)) == []  # a body that came and went
    [life] = lives(lived([100] * 10 + [100] * 20 + [104] * 20), 10)
    assert (life.pid, life.first_mb, life.last_mb, round(life.growth, 3)) == ("1", 100, 104, 0.04)


def test_one_that_did_not_live_long_tells_nothing() -> None:
    assert lives(lived([100] * 15), 10) == []
    assert missed(lived([100] * 15)) == ["memory, the worker that grew most"]


@pytest.mark.parametrize(
    ("count", "name"),
    [
        ("lost", "good requests lost"),
        ("wrong", "answered wrongly"),
        ("errors", "errors"),
    ],
)
def test_none_may_be(count: str, name: str) -> None:
    counts: Any = {count: 1}
    assert missed(lived([100] * 60), **counts) == [name]


def test_few_may_lack_a_member() -> None:
    assert missed(lived([100] * 60), degraded=1) == []
    assert missed(lived([100] * 60), degraded=2) == ["answered without a member, or not for lack of them"]


def test_descriptors_and_threads_are_compared_at_rest() -> None:
    before, after = (Sample(0, {"1": replace(PROCESS, fds=fds, threads=fds)}, PROCESS) for fds in (30, 63))
    assert missed(lived([100] * 60, fds=300), (before, after)) == [
        "file descriptors at rest, after − before",
        "threads at rest, after − before",
    ]
    assert missed(lived([100] * 60), (after, before)) == []


def test_samples_are_lines_that_can_be_read_again(tmp_path: Path) -> None:
    file = io.StringIO()
    record = Record(file)
    sample = Sample(1.5, {"7": PROCESS}, PROCESS, {"p50": 1.0}, {"right": 3}, {"400": 2}, {"server": 1.0}, ["SIGHUP"])
    for one in (sample, replace(sample, at=3.0, supervisor=None, counts={"right": 9}, events=[])):
        record.add(one)
    assert read_samples(file.getvalue().splitlines()) == record.samples
    draw(record.samples, tmp_path / "a.svg")
    draw(record.samples, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_process_that_is_and_one_that_is_not() -> None:
    found = look_at(1 if look_at(1) else 0)
    assert found is None or found.threads >= 1
    assert look_at(2**22 + 1) is None
    assert percentiles([]) == {}
    assert percentiles([0.001] * 100) == {"p50": 1.0, "p99": 1.0, "p99.9": 1.0}


def test_what_is_the_same() -> None:
    right = {"label": "red", "p": [0.1, 0.9], "n": 3, "x": None}
    assert same({**right, "p": [0.10001, 0.9]}, right)
    others: list[Any] = [
        {**right, "p": [0.2, 0.8]},
        {**right, "label": "blue"},
        {**right, "p": [0.1]},
        {"label": "red"},
        [],
    ]
    for wrong in others:
        assert not same(wrong, right)
    assert not same({**right, "p": [float("nan"), 0.9]}, right)


def test_answers_in_every_form() -> None:
    json_ = json.dumps({"version": 3, "predictions": []}).encode()
    assert read({"content-type": "application/json"}, json_) == ("3", {"version": 3, "predictions": []})
    floats = b"\0\0\x80\x3f"
    raw = headers_of(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nCommittee-Version: 2")
    assert read(raw, floats)[0] == "2"
    assert read(raw, floats)[1][1] == [1.0]
    said = b'{"model_version":"1"}'
    assert read({"inference-header-content-length": str(len(said))}, said + floats)[0] == "1"


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> list[Ask]:
    root = tmp_path_factory.mktemp("soak")
    write_repository(root)
    return make(root)


def test_every_strategy_and_form_is_asked(asks: list[Ask]) -> None:
    said = b"".join(ask.raw for ask in asks)
    for strategy in (b"average", b"weighted", b"vote", b"log_linear", b"median", b"max", b"stacking", b"cascade"):
        assert b"/predict?strategy=" + strategy in said
        assert b'"strategy": "' + strategy + b'"' in said
    assert {"application/json", "application/octet-stream"} == {ask.headers["Content-Type"] for ask in asks}


def test_what_becomes_of_a_good_request_has_one_word(asks: list[Ask]) -> None:
    number = next(k for k, ask in enumerate(asks) if ask.may_be_gone and len(ask.rights) == 2)
    ask = asks[number]
    killed = [False]
    load = Load(asks, lambda: killed[0])

    def word(status: int, body: bytes = b"", head: bytes = b"", request: int = number) -> str:
        before = load.counts.copy()
        load.judge(Answer(request, 0.0, 0.01, status, head, body))
        [changed] = [name for name, count in (load.counts - before).items() if count and name != "asked"]
        return changed

    for version, right in ask.rights.items():
        assert word(200, json.dumps(right).encode()) == "right"
        assert word(200, json.dumps({**right, "version": 3 - int(version)}).encode()) == "wrong"
        assert word(200, json.dumps({**right, "degraded": True}, separators=(",", ":")).encode()) == "degraded"
    assert word(503, head=b"HTTP/1.1 503 x\r\nretry-after: 1\r\n") == "refused"
    assert word(503, b'{"error":"x","code":"quorum_missed"}') == "degraded"
    assert word(503) == "wrong"  # it does not say when to come again
    assert word(404) == "unloaded"
    assert word(404, request=0) == "wrong"
    assert word(500) == "wrong"
    assert word(0) == "lost"
    killed[0] = True
    assert word(0) == "cut"
    assert len(load.seconds) == 2
    assert any("500" in fault for fault in load.faults)


def test_the_table_stands_between_its_marks(tmp_path: Path) -> None:
    out, docs = tmp_path / "out", tmp_path / "docs"
    out.mkdir()
    docs.mkdir()
    (out / "soak.svg").write_text("<svg/>")
    (docs / "reliability.md").write_text(f"before\n{BEGIN}old\n{END}after\n")
    found = Found([Check("lost", "0 of 5", "0", True)], ["told"])
    write_docs(found, out, docs)
    page = (docs / "reliability.md").read_text()
    assert page == f"before\n{BEGIN}| | found | meant |\n|---|---|---|\n| lost | 0 of 5 | 0 |\n\ntold\n{END}after\n"
    assert (docs / "soak.svg").read_text() == "<svg/>"
