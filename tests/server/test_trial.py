"""Repositories whose graphs hang, crash or want all memory are tried, and refused, in bounded time and memory."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from server import proof, trial
from tests import tiny
from tests.server.folders import write_by_hand

SECONDS = 30
X = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])
Y = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])
W = {"W": np.zeros((4, 3), np.float32)}
SOFTMAX = [
    helper.make_node("MatMul", ["read", "W"], ["z"]),
    helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
]


def endless() -> bytes:
    """A loop whose condition never changes."""
    value = helper.make_tensor_value_info("value", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["value"], ["same"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            value,
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["", "yes", "X"], ["read"], body=body)
    return tiny.graph([loop, *SOFTMAX], [X], [Y], {**W, "yes": np.array(True)})


def doubling(times: int) -> bytes:
    """Every node holds twice what the one before it does."""
    nodes, last = [], "X"
    for index in range(times):
        nodes.append(helper.make_node("Concat", [last, last], [f"d{index}"], axis=0))
        last = f"d{index}"
    nodes.append(helper.make_node("Slice", [last, "zero", "three", "zero"], ["read"]))
    return tiny.graph([*nodes, *SOFTMAX], [X], [Y], {**W, "zero": np.array([0]), "three": np.array([3])})


def test_a_good_one(tmp_path: Path) -> None:
    tiny.write_ensemble(tmp_path)
    write_by_hand(tmp_path, place="by_hand/1")
    assert trial.find_fault(tmp_path, "latest", seconds=SECONDS) is None


def test_one_that_is_wrong(tmp_path: Path) -> None:
    folder = write_by_hand(tmp_path, m2=b"hello")
    fault = trial.find_fault(tmp_path, "all", seconds=SECONDS)
    assert fault is not None
    assert fault.startswith(f"{folder}/m2.onnx: expected an ONNX file; got bytes that are none")


def test_one_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped between two nodes of the graph."""
    monkeypatch.setattr(proof, "PROOF_SECONDS", 0.2)
    folder = write_by_hand(tmp_path, m2=endless())
    fault = trial.find_fault(tmp_path, "all", seconds=SECONDS)
    assert fault is not None
    assert fault.startswith(f"{folder}: made-up rows, 3 at a time: {folder}/m2.onnx: ")


def test_one_that_does_not_answer_at_all(tmp_path: Path) -> None:
    write_by_hand(tmp_path, m2=endless())
    fault = trial.find_fault(tmp_path, "all", seconds=0.5)
    assert fault == f"{tmp_path}: expected its graphs to load and to answer within 0.5 seconds; they did not"


def test_one_that_wants_all_memory(tmp_path: Path) -> None:
    folder = write_by_hand(tmp_path, m2=doubling(36))
    fault = trial.find_fault(tmp_path, "all", seconds=SECONDS)
    assert fault is not None
    assert str(folder) in fault or str(tmp_path) in fault


@pytest.mark.parametrize(
    ("end", "cause"),
    [(lambda *_: os.kill(os.getpid(), signal.SIGSEGV), "signal 11"), (lambda *_: os._exit(3), "exit code 3")],
)
def test_one_that_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Any, cause: str) -> None:
    tiny.write_ensemble(tmp_path)
    monkeypatch.setattr(trial, "load_version", end)
    fault = trial.find_fault(tmp_path, "all", seconds=SECONDS)
    assert fault == f"{tmp_path}: loading its graphs ended the process that tried it, by {cause}"


def test_one_that_runs_out_of_python_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_ensemble(tmp_path)
    monkeypatch.setattr(trial, "load_version", lambda _: bytearray(1 << 40))
    assert "expected its graphs to load in 2048 MiB" in str(trial.find_fault(tmp_path, "all", seconds=SECONDS))


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    folder = write_by_hand(tmp_path)
    with (folder / "m2.onnx").open("r+b") as file:
        file.truncate(1 << 40)
    assert "expected at most 2147483648 bytes" in str(trial.find_fault(tmp_path, "all", seconds=SECONDS))
