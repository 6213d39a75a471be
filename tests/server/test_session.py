import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper

from server.errors import InvalidRepository, MemberFailed
from server.session import Session, TensorSpec
from tests import tiny


def linear() -> bytes:
    return tiny.linear_member(tiny.coefficients(1)[0])


def test_a_session_answers_what_arithmetic_says() -> None:
    x = tiny.rows(5)
    (answered,) = Session(linear(), where="m1.onnx").run(["probabilities"], {"X": x})
    assert answered.dtype == np.float32
    assert_allclose(answered, tiny.answers(x, 1)[0], atol=1e-6)


def test_a_session_on_more_threads_answers_the_same() -> None:
    x = {"X": tiny.rows(64)}
    one, two = (Session(linear(), where="m1.onnx", threads=n).run(["probabilities"], x) for n in (1, 2))
    assert_allclose(one, two, atol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts the threads of Linux")
@pytest.mark.parametrize("threads", [1, 3])
def test_sessions_have_threads_of_their_own_that_do_not_spin(threads: int) -> None:
    """The caller's is one of them."""
    code = """
import sys, time
from pathlib import Path
from server.session import Session
from tests import tiny
def count():
    return len(list(Path("/proc/self/task").iterdir()))
model, x = tiny.linear_member(tiny.coefficients(1)[0]), {"X": tiny.rows(64)}
Session(model, where="m1.onnx").run(["probabilities"], x)
before = count()
sessions = [Session(model, where="m1.onnx", threads=int(sys.argv[1])) for _ in range(4)]
print(count() - before)
for session in sessions:
    session.run(["probabilities"], x)
began = time.process_time()
time.sleep(0.5)
print(time.process_time() - began)
"""
    done = subprocess.run([sys.executable, "-c", code, str(threads)], capture_output=True, text=True, check=True)
    more, busy = done.stdout.split()
    assert int(more) == 4 * (threads - 1)
    assert float(busy) < 0.1


def test_a_session_tells_what_its_tensors_look_like() -> None:
    session = Session(linear(), where="m1.onnx")
    assert session.inputs == {"X": TensorSpec("X", "tensor(float)", (None, 4))}
    assert session.outputs == {"probabilities": TensorSpec("probabilities", "tensor(float)", (None, 3))}
    assert session.optional_inputs == {}


def test_an_input_that_has_a_default_is_optional() -> None:
    session = Session(tiny.packed_members(tiny.coefficients(2)), where="ensemble.onnx")
    assert session.inputs.keys() == {"X"}
    assert session.optional_inputs["members"] == TensorSpec("members", "tensor(bool)", (2,))


def test_outputs_come_in_the_order_asked_for() -> None:
    graph = tiny.graph(
        [helper.make_node("Neg", ["X"], ["negative"]), helper.make_node("Abs", ["X"], ["absolute"])],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("negative", "absolute")],
    )
    x = tiny.rows(3)
    absolute, negative = Session(graph, where="two.onnx").run(["absolute", "negative"], {"X": x})
    assert_array_equal(absolute, np.abs(x))
    assert_array_equal(negative, -x)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ONNX Runtime cannot load it: "),
        (b"garbage", "expected an ONNX file; got bytes that are none: "),
        (linear()[:100], "expected an ONNX file; got bytes that are none: "),
        (linear()[:-10], "expected an ONNX file; got bytes that are none: "),
        (b"\x00" * 1000, "ONNX Runtime cannot load it: "),
    ],
    ids=["empty", "garbage", "cut", "cut late", "NULs"],
)
def test_bytes_that_are_no_graph_are_refused_in_one_line(data: bytes, said: str) -> None:
    with pytest.raises(InvalidRepository) as caught:
        Session(data, where="models/tiny/1/m1.onnx")
    assert caught.value.message.startswith(f"models/tiny/1/m1.onnx: {said}")
    assert "\n" not in caught.value.message


def test_a_graph_of_operators_that_do_not_exist_is_refused() -> None:
    model = onnx.load_from_string(linear())
    model.graph.node[1].op_type = "Softestmax"
    with pytest.raises(InvalidRepository, match="Softestmax"):
        Session(model.SerializeToString(), where="m1.onnx")


def test_a_graph_cannot_read_files_that_nobody_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = onnx.load_from_string(linear())
    onnx.save_model(model, "m1.onnx", save_as_external_data=True, location="beside.bin", size_threshold=0)
    assert (tmp_path / "beside.bin").exists()
    with pytest.raises(InvalidRepository, match="expected all weights in the graph; got some in another file"):
        Session((tmp_path / "m1.onnx").read_bytes(), where="m1.onnx")


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 5), dtype=np.float32),
        np.zeros(4, dtype=np.float32),
        np.zeros((2, 4), dtype=np.float64),
        np.zeros((2, 4), dtype=np.str_),
    ],
    ids=["columns", "rank", "float64", "text"],
)
def test_a_run_that_fails_names_the_graph_in_one_line(x: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    session = Session(linear(), where="models/tiny/1/m1.onnx")
    with pytest.raises(MemberFailed) as caught:
        session.run(["probabilities"], {"X": x})
    assert caught.value.message.startswith("models/tiny/1/m1.onnx: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("outputs", "inputs"), [(["logits"], ["X"]), (["probabilities"], ["Y"]), (["probabilities"], [])]
)
def test_a_run_of_names_that_the_graph_does_not_have_fails(outputs: list[str], inputs: list[str]) -> None:
    session = Session(linear(), where="m1.onnx")
    with pytest.raises(MemberFailed, match=r"m1\.onnx"):
        session.run(outputs, {name: tiny.rows(2) for name in inputs})


def test_a_session_that_failed_once_goes_on_answering() -> None:
    session, x = Session(linear(), where="m1.onnx"), tiny.rows(2)
    with pytest.raises(MemberFailed):
        session.run(["probabilities"], {"X": x[:, :3]})
    (answered,) = session.run(["probabilities"], {"X": x})
    assert_allclose(answered, tiny.answers(x, 1)[0], atol=1e-6)


def test_a_provider_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidRepository) as caught:
        Session(linear(), where="m1.onnx", providers=("rocm", "cpu"))
    assert str(caught.value) == "m1.onnx: expected provider 'rocm'; this onnxruntime has cpu"


def test_a_session_that_falls_back_without_a_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    real = onnxruntime.InferenceSession

    def on_the_cpu(model: bytes, options: object, providers: list[str], **_: int) -> object:
        assert providers == there
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    with pytest.raises(InvalidRepository) as caught:
        Session(linear(), where="m1.onnx", providers=("cuda", "cpu"))
    assert str(caught.value) == (
        "m1.onnx: expected provider 'cuda', got CPUExecutionProvider: its libraries or its device are not there"
    )
