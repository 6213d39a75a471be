"""Our own server, started, checked and loaded: as `make bench` does it, but by httpx instead of wrk."""

import json
import sys
import time
from pathlib import Path

import httpx
import pytest

from bench.peers import __main__ as command
from bench.peers import measure as module
from bench.peers import process
from bench.peers.contenders import ALL, SECTIONS, Section
from bench.peers.load import Load
from bench.peers.machine import pids_of
from bench.peers.measure import Record, Way, _undisturbed, measure, only
from bench.peers.report import text
from tests.bench.peers.test_runs import run


def by_httpx(port: int, requests: Path, connections: int, seconds: int) -> Load:
    """The requests of the file, once each."""
    took = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for line in requests.read_text().splitlines():
            path, body, *headers = line.split("\t")
            began = time.perf_counter()
            said = dict(zip(headers[::2], headers[1::2], strict=True))
            assert client.post(path, content=Path(body).read_bytes(), headers=said).status_code == 200
            took.append(time.perf_counter() - began)
    ms = sorted(1e3 * one for one in took)
    return Load(len(took), sum(took), ms[len(ms) // 2], ms[-1], ms[-1], ms[-1], 0)


def test_a_server_is_measured_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load", by_httpx)
    for module_of_it in (process, command):
        monkeypatch.setattr(module_of_it, "python", lambda _: Path(sys.executable))
    section = Section("beside", "Here", "fashion", ("ours-1w",), "json1@1 binary2@1 mixed1@1")
    said: list[str] = []
    run_ids = []

    def stop(run_id: str) -> None:
        run_ids.append(run_id)
        stopped(run_id)

    stopped = process.stop
    monkeypatch.setattr(process, "stop", stop)
    record = Record()
    measure([section], Way(rounds=1, seconds=1, noise=10), record, said.append, tmp_path)
    assert record.failures == {}
    assert [one.cell for one in record.runs] == ["json1@1", "binary2@1", "mixed1@1"]
    assert all(one.requests_s > 0 and one.errors == 0 for one in record.runs)
    (start,) = record.starts
    assert start.largest_difference < 1e-6
    assert start.memory_mb > 10
    assert [pids_of(run_id) for run_id in run_ids] == [[]]
    found = command.results(record, Way(rounds=1, seconds=1, noise=10), [section])
    assert "| **Committee, 1 worker** |" in text(json.loads(json.dumps(found)))


def test_a_wrong_answer_is_a_failure_and_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load", by_httpx)
    monkeypatch.setattr(process, "python", lambda _: Path(sys.executable))
    monkeypatch.setattr(module, "open_graph", lambda _: lambda rows: rows[:, :10] * 0)
    said: list[str] = []
    section = Section("beside", "Here", "fashion", ("ours-1w",), "json1@1")
    record = Record()
    measure([section], Way(rounds=2, seconds=1), record, said.append, tmp_path)
    assert list(record.failures) == ["ours-1w"]
    assert "from the right one" in record.failures["ours-1w"]
    assert record.runs == []


def test_a_server_that_does_not_start_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "python", lambda _: Path("/bin/false"))
    section = Section("beside", "Here", "fashion", ("ours-1w",), "json1@1")
    record = Record()
    measure([section], Way(rounds=1, seconds=1), record, lambda _: None, tmp_path)
    assert "ended with 1 at its start" in record.failures["ours-1w"]


def test_disturbed_runs_are_repeated_as_long_as_there_is_patience() -> None:
    runs = iter([run(500, 1.0), run(600, 0.9), run(1000), run(400, 1.0), run(400, 1.0)])
    record = Record(repeats=3)
    way = Way(tries=3)
    assert [one.requests_s for one in _undisturbed(lambda: next(runs), way, record)] == [500, 600, 1000]
    assert [one.requests_s for one in _undisturbed(lambda: next(runs), way, record)] == [400, 400]
    assert record.repeats == 0


def test_contenders_can_be_left_out() -> None:
    kept = only(SECTIONS, lambda name: name == "naive-2w")
    assert [section.name for section in kept] == ["beside", "heavy"]
    assert all(section.contenders == ("naive-2w",) for section in kept)


def test_the_command_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed for name in ALL)
    assert "raw " in printed


def test_the_command_refuses_names_that_there_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "ours-2w,nginx"])
    assert "got nginx" in capsys.readouterr().err


def test_without_wrk_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert command.main(["--quick"]) == 1
    assert "apt-get install wrk" in capsys.readouterr().out
