"""CPU, memory and processes, as /proc tells of them."""

import os
import subprocess
import sys

import pytest

from bench.peers import machine
from bench.peers.machine import Clock, clock, cpu_seconds, memory_mb, pids_of, shares


def test_what_is_foreign_is_what_neither_server_nor_load_nor_we_used() -> None:
    used = shares(Clock(10, 100, 1, 50, 5, 7), Clock(14, 107, 1.2, 54, 5.2, 7.8))
    assert used.server == 1
    assert used.load == pytest.approx(0.2)
    assert used.foreign == pytest.approx((7 - 4 - 0.8 - 0.2) / 4)
    assert used.steal == pytest.approx(0.05)


def test_ticks_of_all_cores() -> None:
    busy, steal = machine.machine_seconds("cpu  100 20 30 9999 50 1 2 7 0 0\ncpu0 1 1\n")
    assert busy == pytest.approx(160 / machine.TICKS)
    assert steal == pytest.approx(7 / machine.TICKS)


def test_processes_are_found_by_the_run_that_they_carry() -> None:
    code = "import sys; sum(range(10**6)); print('ready', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, machine.RUN_ID: "test-1"}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert pids_of("test-1") == [process.pid]
        assert pids_of("test-2") == []
        assert 1 < memory_mb([process.pid]) < 500
        assert cpu_seconds([process.pid]) >= 0
        assert clock([process.pid]).machine > 0
    finally:
        process.communicate(b"")


def test_processes_that_are_gone_count_nothing() -> None:
    assert cpu_seconds([2**22 + 1]) == 0
    assert memory_mb([2**22 + 1]) == 0


def test_the_machine_is_described() -> None:
    said = machine.describe()
    assert said["cores"]
    assert said["onnxruntime"]
