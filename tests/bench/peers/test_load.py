"""What wrk prints, and what is said where it is missing."""

from pathlib import Path

import pytest

from bench.peers import load as module
from bench.peers.load import LoadFailed, find_wrk, load, parse

PRINTED = """Running 3s test @ http://127.0.0.1:9000
  1 threads and 64 connections
Requests/sec:  15000.00
RESULT {"requests":45000,"duration_us":3000000,"p50_us":4000.0,"p90_us":5500.0,"p99_us":8000.0,"max_us":20000.0,\
"errors":{"connect":0,"read":1,"write":0,"status":2,"timeout":3}}
"""


def test_the_line_of_the_script_is_read() -> None:
    done = parse(PRINTED)
    assert done.rate == 15000
    assert (done.p50_ms, done.p90_ms, done.p99_ms, done.max_ms) == (4, 5.5, 8, 20)
    assert done.errors == 6


def test_no_such_line_and_no_answer_are_failures() -> None:
    with pytest.raises(LoadFailed, match="expected a line RESULT, got 'unable to connect'"):
        parse("unable to connect\n")
    with pytest.raises(LoadFailed, match="no request was answered"):
        parse(PRINTED.replace('"requests":45000', '"requests":0'))


def test_who_has_no_wrk_is_told_where_it_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LoadFailed, match="apt-get install wrk"):
        find_wrk()


def test_it_is_called_with_one_thread_and_the_requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "wrk"
    fake.write_text(f"#!/bin/sh\necho \"$@ $REQUESTS\" > {tmp_path}/called\ncat <<'END'\n{PRINTED}END\n")
    fake.chmod(0o755)
    monkeypatch.setattr(module, "find_wrk", lambda: str(fake))
    assert load(9000, tmp_path / "requests", 64, 3).requests == 45000
    called = (tmp_path / "called").read_text()
    assert "--threads 1 --connections 64 --duration 3s" in called
    assert called.endswith(f"http://127.0.0.1:9000 {tmp_path / 'requests'}\n")


def test_what_it_says_when_it_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "wrk"
    fake.write_text("#!/bin/sh\necho 'unable to connect' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(module, "find_wrk", lambda: str(fake))
    with pytest.raises(LoadFailed, match="wrk: unable to connect"):
        load(9000, tmp_path / "requests", 1, 1)
