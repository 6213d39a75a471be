import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from server.ensemble import Ensemble
from server.errors import InvalidRepository
from server.manifest import VECTORS_FILE, InputSpec, Manifest
from server.proof import BATCH, VECTORS_LIMIT, made_rows, probe, replay, take_many
from server.repository import load_version
from server.rows import split_rows
from tests import tiny

N_MEMBERS = 2
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def ensemble(tmp_path: Path) -> Ensemble:
    return load_version(tiny.write_ensemble(tmp_path, n_members=N_MEMBERS))


def refusal(ensemble: Ensemble, vectors: bytes) -> str:
    """The message of refused vectors, proved to be one line that names their file."""
    with pytest.raises(InvalidRepository) as caught:
        replay(ensemble, {VECTORS_FILE: vectors})
    message = caught.value.message
    assert message.isprintable()
    where = f"{ensemble.where}/{VECTORS_FILE}: "
    assert message.startswith(where)
    return message.removeprefix(where)


# Recorded vectors ---------------------------------------------------------------------------------------------------


def npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def archive(**entries: bytes) -> bytes:
    """A zip of `<name>.npy` entries with any bytes in them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in entries.items():
            file.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def claiming(shape: str) -> bytes:
    """A `.npy` whose header promises an array of this shape, with sixteen bytes of it."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 16


X = tiny.rows(8)
P = tiny.answers(X, N_MEMBERS)


def with_cell(value: float, array: NDArray[np.float32]) -> NDArray[np.float32]:
    changed = array.copy()
    changed[(-1,) * changed.ndim] = value
    return changed


NO_ARRAYS = "expected the arrays X and member_probabilities: "
INPUTS = "expected X to be float32 of shape (n, 4), got "
ANSWERS = "expected member_probabilities to be float32 of shape (2, 8, 3), got "
DISTRIBUTIONS = "expected member_probabilities to be distributions over the classes"
VECTORS: list[tuple[str, bytes, str]] = [
    ("empty", b"", NO_ARRAYS),
    ("garbage", b"garbage", NO_ARRAYS),
    ("a pickle", pickle.dumps({"X": X, "member_probabilities": P}), NO_ARRAYS),
    ("one array", npy(X), NO_ARRAYS),
    ("cut", npz(X=X, member_probabilities=P)[:-30], NO_ARRAYS),
    ("no array", npz(), NO_ARRAYS),
    ("no inputs", npz(member_probabilities=P), NO_ARRAYS),
    ("no probabilities", npz(X=X), NO_ARRAYS),
    ("other names", npz(x=X, y=P), NO_ARRAYS),
    ("pickled inputs", npz(X=np.array([{}], dtype=object), member_probabilities=P), NO_ARRAYS),
    ("pickled answers", npz(X=X, member_probabilities=np.array([{}], dtype=object)), NO_ARRAYS),
    ("entries that are no arrays", archive(X=b"garbage", member_probabilities=b""), NO_ARRAYS),
    ("a cut entry", archive(X=npy(X)[:-1], member_probabilities=npy(P)), NO_ARRAYS),
    ("a vast claim", archive(X=claiming("(1099511627776, 4)"), member_probabilities=npy(P)), NO_ARRAYS),
    ("a claim past 64 bits", archive(X=claiming("(10**30, 4)"), member_probabilities=npy(P)), NO_ARRAYS),
    ("a large claim", archive(X=claiming("(100000000, 4)"), member_probabilities=npy(P)), NO_ARRAYS),
    ("a negative claim", archive(X=claiming("(-1, 4)"), member_probabilities=npy(P)), NO_ARRAYS),
    ("a header that is code", archive(X=claiming("print()"), member_probabilities=npy(P)), NO_ARRAYS),
    ("a long header", archive(X=claiming(f"({'1,' * 20_000})"), member_probabilities=npy(P)), NO_ARRAYS),
    ("scalar inputs", npz(X=np.array(1, dtype=np.float32), member_probabilities=P), f"{INPUTS}float32 ()"),
    ("no rows", npz(X=X[:0], member_probabilities=P[:, :0]), f"{INPUTS}float32 (0, 4)"),
    ("a flat row", npz(X=X[0], member_probabilities=P), f"{INPUTS}float32 (4,)"),
    ("other features", npz(X=X[:, :3], member_probabilities=P), f"{INPUTS}float32 (8, 3)"),
    ("deep inputs", npz(X=X[:, :, None], member_probabilities=P), f"{INPUTS}float32 (8, 4, 1)"),
    ("double inputs", npz(X=X.astype(np.float64), member_probabilities=P), f"{INPUTS}float64"),
    ("whole inputs", npz(X=X.astype(np.int64), member_probabilities=P), f"{INPUTS}int64"),
    ("inputs in words", npz(X=X.astype(np.str_), member_probabilities=P), f"{INPUTS}<U"),
    ("scalar answers", npz(X=X, member_probabilities=np.array(1, dtype=np.float32)), f"{ANSWERS}float32 ()"),
    ("fewer members", npz(X=X, member_probabilities=P[:1]), f"{ANSWERS}float32 (1, 8, 3)"),
    ("fewer rows", npz(X=X, member_probabilities=P[:, 1:]), f"{ANSWERS}float32 (2, 7, 3)"),
    ("fewer classes", npz(X=X, member_probabilities=P[:, :, 1:]), f"{ANSWERS}float32 (2, 8, 2)"),
    ("answers in words", npz(X=X, member_probabilities=P.astype(np.str_)), f"{ANSWERS}<U"),
    ("complex answers", npz(X=X, member_probabilities=P.astype(np.complex64)), f"{ANSWERS}complex64"),
    ("NaN in the answers", npz(X=X, member_probabilities=with_cell(NAN, P)), DISTRIBUTIONS),
    ("infinity in the answers", npz(X=X, member_probabilities=with_cell(INFINITY, P)), DISTRIBUTIONS),
    ("minus infinity in the answers", npz(X=X, member_probabilities=with_cell(-INFINITY, P)), DISTRIBUTIONS),
    ("a negative answer", npz(X=X, member_probabilities=with_cell(-0.5, P)), DISTRIBUTIONS),
    ("sums above one", npz(X=X, member_probabilities=P * np.float32(1.01)), DISTRIBUTIONS),
    ("NaN in the inputs", npz(X=with_cell(NAN, X), member_probabilities=P), "replaying it failed: "),
    ("other members' answers", npz(X=X, member_probabilities=P[::-1]), "member 'm1', row "),
    ("other rows' answers", npz(X=X[::-1], member_probabilities=P), "member 'm"),
]


@pytest.mark.filterwarnings("ignore:Mean of empty")
@pytest.mark.parametrize(("data", "message"), [case[1:] for case in VECTORS], ids=[case[0] for case in VECTORS])
def test_vectors_that_prove_nothing_are_refused(ensemble: Ensemble, data: bytes, message: str) -> None:
    assert refusal(ensemble, data).startswith(message)


def test_vectors_that_are_not_there_are_refused(ensemble: Ensemble) -> None:
    with pytest.raises(InvalidRepository, match="expected test vectors; the manifest lists none"):
        replay(ensemble, {})


def test_a_refusal_of_a_replay_says_which_probability_lies_how_far_off(ensemble: Ensemble) -> None:
    expected = P.copy()
    expected[1, 6] += np.array([0.02, -0.01, -0.01], dtype=np.float32)
    message = refusal(ensemble, npz(X=X, member_probabilities=expected))
    assert message.startswith("member 'm2', row 6, class 0: expected ")
    recorded, answered = map(float, re.findall(r"\d\.\d{6}", message))
    assert (recorded, answered) == pytest.approx((P[1, 6, 0] + 0.02, P[1, 6, 0]), abs=1e-5)


def test_a_replay_forgives_the_last_digits(ensemble: Ensemble) -> None:
    replay(ensemble, {VECTORS_FILE: npz(X=X, member_probabilities=P + np.float32(5e-5))})


def test_vectors_that_decompress_to_more_than_a_limit_are_refused_unread(ensemble: Ensemble) -> None:
    buffer, zeros = io.BytesIO(), b"\0" * (1 << 20)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("member_probabilities.npy", npy(P))
        with file.open("X.npy", "w", force_zip64=True) as entry:
            entry.write(claiming(f"({VECTORS_LIMIT // 16}, 4)")[:-16])
            for _ in range(VECTORS_LIMIT >> 20):
                entry.write(zeros)
    assert len(buffer.getvalue()) < VECTORS_LIMIT // 100
    message = refusal(ensemble, buffer.getvalue())
    assert re.search(rf"they decompress to \d+ bytes, more than {VECTORS_LIMIT}$", message)


def test_compressed_vectors_are_read(ensemble: Ensemble) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, X=X, member_probabilities=P)
    replay(ensemble, {VECTORS_FILE: buffer.getvalue()})


# Recorded vectors of a table ----------------------------------------------------------------------------------------

PEOPLE = tiny.people(6)
AGE, JOB = PEOPLE["age"], PEOPLE["job"].astype(np.str_)
TABLE_P = tiny.table_answers(PEOPLE, N_MEMBERS)


@pytest.fixture
def table(tmp_path: Path) -> Ensemble:
    return load_version(tiny.write_table_ensemble(tmp_path, n_members=N_MEMBERS))


def test_vectors_of_a_table_hold_an_array_an_input(table: Ensemble) -> None:
    replay(table, {VECTORS_FILE: npz(age=AGE, job=JOB, member_probabilities=TABLE_P)})


TABLES: list[tuple[str, dict[str, NDArray[Any]], str]] = [
    ("a column less", {"age": AGE}, "expected the arrays age, job and member_probabilities: "),
    ("objects", {"age": AGE, "job": JOB.astype(object)}, "expected the arrays age, job and member_probabilities: "),
    ("bytes", {"age": AGE, "job": JOB.astype("S8")}, "expected job to be text of shape (6, 1), got |S8 (6, 1)"),
    ("numbers for text", {"age": AGE, "job": AGE}, "expected job to be text of shape (6, 1), got float32 (6, 1)"),
    ("text for numbers", {"age": JOB, "job": JOB}, "expected age to be float32 of shape (n, 1), got <U5 (6, 1)"),
    ("fewer texts", {"age": AGE, "job": JOB[1:]}, "expected job to be text of shape (6, 1), got <U5 (5, 1)"),
    ("fewer numbers", {"age": AGE[1:], "job": JOB}, "expected job to be text of shape (5, 1), got <U5 (6, 1)"),
    ("flat texts", {"age": AGE, "job": JOB[:, 0]}, "expected job to be text of shape (6, 1), got <U5 (6,)"),
    ("two texts a row", {"age": AGE, "job": np.hstack([JOB, JOB])}, "expected job to be text of shape (6, 1), got <U5"),
    ("no rows", {"age": AGE[:0], "job": JOB[:0]}, "expected age to be float32 of shape (n, 1), got float32 (0, 1)"),
    ("other texts", {"age": AGE, "job": np.roll(JOB, 1)}, "member 'm"),
]


@pytest.mark.parametrize(("arrays", "message"), [case[1:] for case in TABLES], ids=[case[0] for case in TABLES])
def test_vectors_of_a_table_that_prove_nothing_are_refused(
    table: Ensemble, arrays: dict[str, NDArray[Any]], message: str
) -> None:
    assert refusal(table, npz(**arrays, member_probabilities=TABLE_P)).startswith(message)


# Recorded vectors of a regression -----------------------------------------------------------------------------------

VALUES = tiny.values(X, N_MEMBERS)


@pytest.fixture
def regression(tmp_path: Path) -> Ensemble:
    return load_version(tiny.write_regression(tmp_path, n_members=N_MEMBERS))


NUMBERS = "expected member_probabilities to be numbers"
REGRESSIONS: list[tuple[str, NDArray[np.float32], str]] = [
    ("probabilities", P, "expected member_probabilities to be float32 of shape (2, 8, 1), got float32 (2, 8, 3)"),
    ("flat values", VALUES[:, :, 0], "expected member_probabilities to be float32 of shape (2, 8, 1), got float32 "),
    ("NaN", with_cell(NAN, VALUES), NUMBERS),
    ("infinity", with_cell(INFINITY, VALUES), NUMBERS),
    ("minus infinity", with_cell(-INFINITY, VALUES), NUMBERS),
    ("other members' values", VALUES[::-1], "member 'm1', row "),
    ("other rows' values", VALUES[:, ::-1], "member 'm"),
    ("the other sign", -VALUES, "member 'm"),
]


@pytest.mark.parametrize(
    ("recorded", "message"), [case[1:] for case in REGRESSIONS], ids=[case[0] for case in REGRESSIONS]
)
def test_values_that_prove_nothing_are_refused(
    regression: Ensemble, recorded: NDArray[np.float32], message: str
) -> None:
    assert refusal(regression, npz(X=X, member_probabilities=recorded)).startswith(message)


def regressor(scale: float, **changes: Any) -> Ensemble:
    """A member of a regression that answers its first feature times a number."""
    slopes = np.array([[scale], [0], [0], [0]], dtype=np.float32)
    data = tiny.regressor(slopes)
    contents = tiny.regression_manifest(1)
    contents["members"][0] |= changes
    contents["files"] = [{"name": "m1.onnx", "sha256": "0" * 64, "bytes": len(data)}]
    return Ensemble(Manifest.model_validate(contents), {"m1.onnx": data}, where="models/tiny/1")


@pytest.mark.parametrize(
    ("value", "recorded", "fits"),
    [
        # Up to 1 by what it is, beyond it by its size.
        (0.0, 0.9e-4, True),
        (0.0, 1.1e-4, False),
        (0.5, 0.50009, True),
        (0.5, 0.50011, False),
        (1000.0, 1000.09, True),
        (1000.0, 1000.11, False),
        (-1e6, -1000090.0, True),
        (-1e6, -1000110.0, False),
        (1e30, 1.00009e30, True),
        (1e30, 1.0002e30, False),
    ],
)
def test_a_replay_forgives_values_by_their_size(value: float, recorded: float, fits: bool) -> None:
    ensemble = regressor(1)
    x = np.zeros((3, 4), dtype=np.float32)
    x[1, 0] = value
    expected = x[None, :, :1].copy()
    expected[0, 1] = recorded
    vectors = npz(X=x, member_probabilities=expected)
    if fits:
        replay(ensemble, {VECTORS_FILE: vectors})
    else:
        assert refusal(ensemble, vectors) == (
            f"member 'm1', row 1, target 0: expected {np.float32(recorded):.6f}, the graph answered "
            f"{np.float32(value):.6f}"
        )


def test_a_members_own_tolerance_is_of_its_values_size_too() -> None:
    x = np.full((1, 4), 1000, dtype=np.float32)
    vectors = npz(X=x, member_probabilities=x[None, :, :1] + np.float32(9))
    replay(regressor(1, tolerance=0.01), {VECTORS_FILE: vectors})
    assert refusal(regressor(1, tolerance=0.008), vectors).startswith("member 'm1', row 0, target 0: ")


# Recorded vectors and a final estimator -----------------------------------------------------------------------------


def stacking(*nodes: NodeProto, **constants: Any) -> Ensemble:
    """Linear members, and a final estimator of these nodes from `answers (2, n, 3)` to `stacked (n, 3)`."""
    final = tiny.graph(
        nodes,
        [helper.make_tensor_value_info("answers", TensorProto.FLOAT, [N_MEMBERS, "n", 3])],
        [helper.make_tensor_value_info("stacked", TensorProto.FLOAT, ["n", 3])],
        {name: np.asarray(value) for name, value in constants.items()},
    )
    files = {f"m{k + 1}.onnx": tiny.linear_member(w) for k, w in enumerate(tiny.coefficients(N_MEMBERS))}
    files["final.onnx"] = final
    contents = tiny.manifest(N_MEMBERS, final_estimator={"file": "final.onnx", "output": "stacked"})
    contents["files"] = [{"name": name, "sha256": "0" * 64, "bytes": len(data)} for name, data in files.items()]
    return Ensemble(Manifest.model_validate(contents), files, where="models/tiny/1")


def test_a_final_estimator_answers_the_recorded_and_the_made_rows() -> None:
    mean = stacking(helper.make_node("ReduceMean", ["answers", "axis"], ["stacked"], keepdims=0), axis=[0])
    replay(mean, {VECTORS_FILE: npz(X=X, member_probabilities=P)})
    probe(mean)


NO_DISTRIBUTION = "models/tiny/1/final.onnx: final_estimator: expected distributions of shape"


def test_a_final_estimator_that_answers_no_distributions_is_found() -> None:
    total = stacking(helper.make_node("ReduceSum", ["answers", "axis"], ["stacked"], keepdims=0), axis=[0])
    message = refusal(total, npz(X=X, member_probabilities=P))
    assert message.startswith(f"replaying it failed: {NO_DISTRIBUTION} (8, 3), got shape (8, 3)")
    with pytest.raises(InvalidRepository) as caught:
        probe(total)
    assert caught.value.message.startswith(
        f"models/tiny/1: made-up rows, 3 at a time: {NO_DISTRIBUTION} (3, 3), got shape (3, 3)"
    )


# Rows that are made up ----------------------------------------------------------------------------------------------


def made(**spec: Any) -> NDArray[Any]:
    """Of one input."""
    inputs = [InputSpec(name="X", **{"shape": [2], **spec})]
    return split_rows(made_rows(inputs), ["X"])["X"]


def test_made_rows_begin_with_zeros_and_the_middle_of_the_domain() -> None:
    rows = made(low=-2.0, high=6.0)
    assert rows.shape == (2 * BATCH, 2)
    assert rows.dtype == np.float32
    assert_array_equal(rows[0], [0, 0])
    assert_array_equal(rows[1], [2, 2])


@pytest.mark.parametrize(
    ("low", "high", "first"),
    [(None, None, 0), (0, None, 0), (5, None, 5), (None, -5, -5), (10, 20, 10), (-1e300, 1e300, 0), (-20, -10, -10)],
)
def test_made_rows_lie_in_the_domain_and_differ(low: float | None, high: float | None, first: float) -> None:
    rows = made(low=low, high=high)
    assert np.isfinite(rows).all()
    assert (rows.astype(np.float64) >= (-INFINITY if low is None else low)).all()
    assert (rows.astype(np.float64) <= (INFINITY if high is None else high)).all()
    assert_array_equal(rows[0], [first, first])
    assert len(np.unique(rows, axis=0)) >= len(rows) - 1  # the middle may be zero


def test_made_rows_are_the_same_each_time() -> None:
    assert_array_equal(made(), made())


@pytest.mark.parametrize("missing", [False, True])
def test_made_numbers_are_missing_only_where_they_may_be(missing: bool) -> None:
    rows = made(missing=missing)
    assert not np.isnan(rows[:-1]).any()
    assert np.isnan(rows[-1]).all() == missing


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("unknown", ["refuse", "accept"])
def test_made_text_is_of_the_categories_and_missing_or_unknown_only_where_it_may_be(
    missing: bool, unknown: str
) -> None:
    texts = made(datatype="BYTES", shape=[1], categories=tiny.JOBS, missing=missing, unknown=unknown)[:, 0]
    assert texts.dtype == object
    assert texts[:4].tolist() == ["cook", "nurse", "pilot", "cook"]
    assert (texts[4] in tiny.JOBS) == (unknown == "refuse")
    assert texts[5] == ("" if missing else "pilot")


def test_made_text_may_be_free() -> None:
    assert all(made(datatype="BYTES", shape=[1])[:, 0])


def build(*nodes: NodeProto, **constants: Any) -> Ensemble:
    """An ensemble of one graph `X (n, 3) -> probabilities (n, 3)`."""
    data = tiny.graph(
        nodes,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        {name: np.asarray(value) for name, value in constants.items()},
    )
    contents = tiny.manifest(1, inputs=[{"name": "X", "shape": [3]}])
    contents["files"] = [{"name": "m1.onnx", "sha256": "0" * 64, "bytes": len(data)}]
    return Ensemble(Manifest.model_validate(contents), {"m1.onnx": data}, where="models/tiny/1")


def test_a_softmax_passes_the_probe() -> None:
    probe(build(helper.make_node("Softmax", ["X"], ["probabilities"], axis=1)))


@pytest.mark.parametrize(
    "write",
    [
        tiny.write_ensemble,
        tiny.write_packed,
        tiny.write_table_ensemble,
        tiny.write_stacked,
        tiny.write_packed_stacked,
        tiny.write_cascade,
        tiny.write_regression,
    ],
)
def test_good_ensembles_pass_the_probe(write: Any, tmp_path: Path) -> None:
    probe(load_version(write(tmp_path)))


def test_a_row_that_depends_on_the_others_is_found() -> None:
    """Batch normalisation as in training: the mean of the batch is taken from each row."""
    centred = build(
        helper.make_node("ReduceMean", ["X", "axes"], ["means"]),
        helper.make_node("Sub", ["X", "means"], ["centred"]),
        helper.make_node("Softmax", ["centred"], ["probabilities"], axis=1),
        axes=[0],
    )
    with pytest.raises(
        InvalidRepository,
        match=r"^models/tiny/1: member 'm1': expected a row's answer not to depend on the rows",
    ) as caught:
        probe(centred)
    assert "has probability 0.333333 alone and 0." in caught.value.message


def test_an_answer_that_is_no_distribution_is_found() -> None:
    with pytest.raises(
        InvalidRepository,
        match=r"^models/tiny/1: made-up rows, 3 at a time: member 'm1': expected a distribution, .*; a graph must end",
    ):
        probe(build(helper.make_node("Abs", ["X"], ["probabilities"])))


def test_a_graph_that_fails_on_one_row_is_found() -> None:
    """It takes the second row of every batch for something else."""
    picky = build(
        helper.make_node("Gather", ["X", "second"], ["picked"], axis=0),
        helper.make_node("Mul", ["picked", "nought"], ["noughts"]),
        helper.make_node("Add", ["X", "noughts"], ["same"]),
        helper.make_node("Softmax", ["same"], ["probabilities"], axis=1),
        second=[1],
        nought=np.float32(0),
    )
    with pytest.raises(InvalidRepository, match=r"^models/tiny/1: made-up rows, 1 at a time: .*m1\.onnx: "):
        probe(picky)


def test_a_graph_with_places_for_few_rows_is_found(tmp_path: Path) -> None:
    placed = build(
        helper.make_node("Shape", ["X"], ["count"], start=0, end=1),
        helper.make_node("Squeeze", ["count"], ["n_rows"]),
        helper.make_node("Range", ["zero", "n_rows", "one"], ["numbers"]),
        helper.make_node("Gather", ["places", "numbers"], ["noughts"], axis=0),
        helper.make_node("Add", ["X", "noughts"], ["same"]),
        helper.make_node("Softmax", ["same"], ["probabilities"], axis=1),
        zero=0,
        one=1,
        places=np.zeros((5, 1), dtype=np.float32),
    )
    probe(placed)
    with pytest.raises(InvalidRepository, match=r"^models/tiny/1: 64 made-up rows at once: .*m1\.onnx: "):
        take_many(placed)
    take_many(load_version(tiny.write_ensemble(tmp_path)))


def build_regression(*nodes: NodeProto, **constants: Any) -> Ensemble:
    """A regression of one graph `X (n, 3) -> values (n, 3)`."""
    data = tiny.graph(
        nodes,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["n", 3])],
        {name: np.asarray(value) for name, value in constants.items()},
    )
    contents = tiny.regression_manifest(1, targets=["a", "b", "c"], inputs=[{"name": "X", "shape": [3]}])
    contents["files"] = [{"name": "m1.onnx", "sha256": "0" * 64, "bytes": len(data)}]
    return Ensemble(Manifest.model_validate(contents), {"m1.onnx": data}, where="models/tiny/1")


AMONG_OTHERS = [
    helper.make_node("ReduceMean", ["X", "axes"], ["means"]),
    helper.make_node("Mul", ["means", "weight"], ["part"]),
    helper.make_node("Mul", ["X", "nought"], ["noughts"]),
    helper.make_node("Add", ["noughts", "part"], ["moved"]),
    helper.make_node("Add", ["moved", "base"], ["values"]),
]
"""To every row `base`, and `weight` of the batch's mean."""


@pytest.mark.parametrize(
    ("base", "weight", "independent"), [(0.0, 1e-7, True), (0.0, 1e-3, False), (1e6, 1.0, True), (1e6, 1e3, False)]
)
def test_a_regressions_row_that_depends_on_the_others_is_found_by_the_size_of_its_values(
    base: float, weight: float, independent: bool
) -> None:
    ensemble = build_regression(
        *AMONG_OTHERS, axes=[0], weight=np.float32(weight), nought=np.float32(0), base=np.float32(base)
    )
    if independent:
        probe(ensemble)
        return
    with pytest.raises(InvalidRepository) as caught:
        probe(ensemble)
    assert re.fullmatch(
        r"models/tiny/1: member 'm1': expected a row's answer not to depend on the rows beside it; "
        r"target \d of a made-up row has value -?\d+\.\d{6} alone and -?\d+\.\d{6} among 3",
        caught.value.message,
    )


def test_values_that_are_no_numbers_are_found() -> None:
    with pytest.raises(InvalidRepository) as caught:
        probe(build_regression(helper.make_node("Log", ["X"], ["values"])))
    assert caught.value.message == (
        "models/tiny/1: made-up rows, 3 at a time: member 'm1': expected numbers, got for row 0 [-inf -inf -inf]; "
        "a graph must end in numbers, for every row of the domain (low and high in [[inputs]])"
    )


def test_values_that_are_no_distributions_pass_the_probe_of_a_regression() -> None:
    probe(build_regression(helper.make_node("Abs", ["X"], ["values"])))
