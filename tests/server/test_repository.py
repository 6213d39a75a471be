import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper

from server.errors import InvalidRepository, NotFound
from server.fusion import REGRESSION, STACKING, STRATEGIES
from server.manifest import MANIFEST_FILE, REPORT_FILE, VECTORS_FILE
from server.plan import Options, make_plan
from server.predicting import predict
from server.repository import GRAPH_LIMIT, MANIFEST_LIMIT, Repository, Versions, find_versions, load_version
from tests import tiny
from tests.server.folders import BY_HAND, unprivileged, write_by_hand

N_MEMBERS = 2

NO_ONNX = "expected an ONNX file; got bytes that are none: "


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def refusal(root: Path, versions: Versions = "latest") -> str:
    """The message of a refused load, without its root: one line that says where."""
    with pytest.raises(InvalidRepository) as caught:
        Repository.load(root, versions=versions)
    message = caught.value.message
    assert message.isprintable()
    assert message.startswith(str(root))
    return message.removeprefix(str(root)).removeprefix("/")


# What is served -----------------------------------------------------------------------------------------------------


def test_a_good_repository_is_served(root: Path) -> None:
    tiny.write_ensemble(root)
    tiny.write_packed(root)
    repository = Repository.load(root, threads=2)
    assert repository.names() == ["packed", "tiny"]
    x = tiny.rows(5)
    for name in repository.names():
        assert_allclose(repository.get(name).run(x), tiny.answers(x, 3), atol=1e-6)


def write_versions(root: Path, *versions: int, name: str = "tiny") -> None:
    for version in versions:
        tiny.write_ensemble(root, n_members=N_MEMBERS, name=name, version=version)


@pytest.mark.parametrize(
    ("versions", "served"),
    [
        ("latest", {"a": [10], "b": [1]}),
        ("all", {"a": [1, 2, 10], "b": [1]}),
        (frozenset({1}), {"a": [1], "b": [1]}),
        (frozenset({1, 2}), {"a": [1, 2], "b": [1]}),
    ],
    ids=str,
)
def test_the_versions_that_are_chosen_are_served(root: Path, versions: Versions, served: dict[str, list[int]]) -> None:
    write_versions(root, 2, 1, 10, name="a")
    write_versions(root, 1, name="b")
    repository = Repository.load(root, versions=versions)
    assert {name: repository.versions(name) for name in repository.names()} == served


def test_the_default_version_is_the_highest_number_that_is_served(root: Path) -> None:
    write_versions(root, 2, 10, 9)
    repository = Repository.load(root, versions="all")
    assert repository.get("tiny").manifest.version == 10
    assert repository.get("tiny", 9).manifest.version == 9


def test_what_is_not_there_is_not_found(root: Path) -> None:
    write_versions(root, 1, 2)
    repository = Repository.load(root)
    with pytest.raises(NotFound, match=r"^no ensemble 'huge'; there are: tiny$"):
        repository.get("huge")
    with pytest.raises(NotFound, match=r"^no ensemble 'huge'; there are: tiny$"):
        repository.versions("huge")
    with pytest.raises(NotFound, match=r"^no version 1 of ensemble 'tiny'; served: 2$"):
        repository.get("tiny", 1)


def test_what_is_being_published_and_what_is_no_folder_is_not_looked_at(root: Path) -> None:
    write_versions(root, 1)
    (root / ".publishing-x" / "tiny" / "2").mkdir(parents=True)
    (root / "tiny" / ".3").mkdir()
    (root / "tiny" / ".keep").touch()
    (root / "README.md").touch()
    assert Repository.load(root, versions="all").versions("tiny") == [1]


def test_versions_that_are_not_chosen_are_not_opened(root: Path) -> None:
    write_versions(root, 1, 2)
    (root / "tiny" / "1" / MANIFEST_FILE).unlink()
    assert Repository.load(root).versions("tiny") == [2]


def test_a_repository_is_loaded_whole_or_not_at_all(root: Path) -> None:
    write_versions(root, 1, 2, name="a")
    write_versions(root, 1, name="b")
    (root / "a" / "1" / "m1.onnx").unlink()
    assert refusal(root, "all").startswith("a/1/m1.onnx: ")


def test_folders_are_found_in_order(root: Path) -> None:
    write_versions(root, 10, 2, name="b")
    write_versions(root, 1, name="a")
    assert find_versions(root, "all") == [root / "a" / "1", root / "b" / "2", root / "b" / "10"]


def test_any_known_strategy_may_be_the_default(root: Path) -> None:
    for strategy in STRATEGIES:
        write = tiny.write_stacked if strategy == "stacking" else tiny.write_ensemble
        write(root, name=strategy, default_strategy=strategy)
    tiny.write_cascade(root)
    for strategy in REGRESSION:
        tiny.write_regression(root, name=f"regression_{strategy}", default_strategy=strategy)
    repository = Repository.load(root)
    names = sorted([*STRATEGIES, "cascade", *(f"regression_{strategy}" for strategy in REGRESSION)])
    assert repository.names() == names
    for name in names:
        assert repository.get(name).manifest.default_strategy == name.removeprefix("regression_")


@pytest.mark.parametrize("targets", [tiny.TARGETS[:1], tiny.TARGETS])
def test_a_regression_is_served(root: Path, targets: list[str]) -> None:
    tiny.write_regression(root, targets=targets)
    ensemble = Repository.load(root).get("regression")
    assert ensemble.verified
    x = tiny.rows(5)
    values = tiny.values(x, 3, len(targets))
    prediction = predict(ensemble, x, make_plan(ensemble, Options()))
    assert prediction.strategy == "mean"
    assert_allclose(prediction.fused.probabilities, values.mean(axis=0), rtol=1e-4, atol=1e-4)
    prediction = predict(ensemble, x, make_plan(ensemble, Options(strategy="weighted", uncertainty=True)))
    assert_allclose(prediction.fused.probabilities, np.average(values, axis=0, weights=[3, 2, 1]), rtol=1e-4, atol=1e-4)
    assert prediction.uncertainty is not None
    assert prediction.uncertainty.__slots__ == ("spread",)


@pytest.mark.parametrize("write", [tiny.write_stacked, tiny.write_packed_stacked])
def test_a_final_estimator_is_served(root: Path, write: Callable[..., Path]) -> None:
    ensemble = load_version(write(root))
    x = tiny.rows(5)
    prediction = predict(ensemble, x, make_plan(ensemble, Options(strategy="stacking")))
    assert_allclose(prediction.fused.probabilities, tiny.stacked_answers(tiny.answers(x, 3)), atol=1e-6)


def test_a_cascade_is_served(root: Path) -> None:
    ensemble = load_version(tiny.write_cascade(root))
    x = tiny.rows(40)
    prediction = predict(ensemble, x, make_plan(ensemble, Options()))
    answers = tiny.answers(x, 3)
    sure = answers[0].max(axis=1) >= 0.8
    assert prediction.stages is not None
    assert_array_equal(prediction.stages, np.where(sure, 1, 2))
    expected = np.where(sure[:, None], answers[0], answers.mean(axis=0))
    assert_allclose(prediction.fused.probabilities, expected, atol=1e-6)


def test_a_member_that_no_longer_has_its_file_goes_on_serving(root: Path) -> None:
    ensemble = load_version(tiny.write_ensemble(root))
    shutil.rmtree(root)
    assert ensemble.run(tiny.rows(2)).shape == (3, 2, 3)


# Refusals: folders --------------------------------------------------------------------------------------------------


def test_a_root_that_is_not_there_is_refused(root: Path) -> None:
    assert refusal(root).startswith(": expected a folder, the model repository")


def test_a_root_that_is_a_file_is_refused(root: Path) -> None:
    root.touch()
    assert refusal(root).startswith(": expected a folder, the model repository")


def test_a_root_without_an_ensemble_is_refused(root: Path) -> None:
    root.mkdir()
    (root / "README.md").touch()
    assert refusal(root).startswith(": expected at least one ensemble, <name>/<version>/ensemble.toml")


def test_an_ensemble_without_a_version_is_refused(root: Path) -> None:
    (root / "tiny").mkdir(parents=True)
    assert refusal(root).startswith("tiny: expected at least one version")


@pytest.mark.parametrize("name", ["a.b", "-a", "a b", "é", "x" * 65, "two\nlines"])
def test_a_folder_whose_name_cannot_be_an_ensembles_is_refused(root: Path, name: str) -> None:
    write_versions(root, 1)
    (root / name).mkdir()
    assert refusal(root).endswith(f"got {name!r}")


@pytest.mark.parametrize("name", ["0", "-1", "01", "one", "1.0", "v1", "1" * 10, "١", "two\nlines"])
def test_a_folder_whose_name_is_no_version_is_refused(root: Path, name: str) -> None:
    write_versions(root, 1)
    (root / "tiny" / name).mkdir()
    assert refusal(root) == f"tiny: expected only folders 1, 2, 3, …, one a version; got {name!r}"


def test_a_file_among_the_versions_is_refused(root: Path) -> None:
    write_versions(root, 1)
    (root / "tiny" / "2").touch()
    assert refusal(root).endswith("got '2'")


def test_an_ensemble_that_has_none_of_the_chosen_versions_is_refused(root: Path) -> None:
    write_versions(root, 1, 2)
    assert refusal(root, frozenset({3, 4})) == "tiny: expected one of the versions [3, 4], got [1, 2]"


@pytest.mark.parametrize(
    ("place", "changes"), [("tiny/2", {}), ("other/1", {}), ("tiny/1", {"version": 2}), ("tiny/1", {"name": "other"})]
)
def test_a_manifest_in_anothers_folder_is_refused(root: Path, place: str, changes: dict[str, Any]) -> None:
    folder = tiny.write_ensemble(root / "elsewhere", n_members=N_MEMBERS, **changes)
    (root / place).parent.mkdir(parents=True)
    folder.rename(root / place)
    shutil.rmtree(root / "elsewhere")
    message = refusal(root)
    assert message.startswith(f"{place}/ensemble.toml: says ensemble ")
    assert message.endswith(f"stands in {place}")


# Refusals: files ----------------------------------------------------------------------------------------------------


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def move_behind_a_symlink(path: Path) -> None:
    path.symlink_to(path.rename(path.parents[2] / "elsewhere"))


def link_once_more(path: Path) -> None:
    (path.parents[2] / "elsewhere").hardlink_to(path)


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


REGULAR = "expected a regular file with one link, got "


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "No such file or directory"),
        (grow, r"expected at most \d+ bytes, got \d+"),
        (cut, r"expected \d+ bytes, got \d+"),
        (flip_a_bit, "expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}"),
        (move_behind_a_symlink, f"{REGULAR}a symbolic link"),
        (link_once_more, f"{REGULAR}-rw-.* with 2"),
        (make_a_folder, f"{REGULAR}drwx"),
        (make_a_fifo, f"{REGULAR}prw"),
    ],
)
@pytest.mark.parametrize("file", ["m1.onnx", VECTORS_FILE])
def test_a_listed_file_that_is_not_what_the_manifest_says_is_refused(
    root: Path, spoil: Callable[[Path], None], reason: str, file: str
) -> None:
    write_versions(root, 1)
    spoil(root / "tiny" / "1" / file)
    assert re.match(f"tiny/1/{re.escape(file)}: {reason}", refusal(root))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "No such file or directory"),
        (move_behind_a_symlink, f"{REGULAR}a symbolic link"),
        (link_once_more, f"{REGULAR}-rw-"),
        (make_a_folder, f"{REGULAR}drwx"),
        (make_a_fifo, f"{REGULAR}prw"),
        (lambda path: path.write_bytes(b"#" * (MANIFEST_LIMIT + 1)), "expected at most 1048576 bytes, got 1048577"),
        (lambda path: path.write_bytes(b"name = 'tiny"), "not TOML: "),
        (lambda path: path.write_bytes(b"\xff"), "expected UTF-8, got byte 0xff"),
    ],
    ids=["missing", "symlink", "hard link", "folder", "fifo", "too big", "no TOML", "not UTF-8"],
)
def test_a_manifest_that_cannot_be_read_is_refused(root: Path, spoil: Callable[[Path], Any], reason: str) -> None:
    write_versions(root, 1)
    spoil(root / "tiny" / "1" / MANIFEST_FILE)
    assert refusal(root).startswith(f"tiny/1/ensemble.toml: {reason}")


@pytest.mark.parametrize("name", ["extra.onnx", ".hidden", "two\nlines"])
def test_a_file_that_the_manifest_does_not_list_is_refused(root: Path, name: str) -> None:
    write_versions(root, 1)
    (root / "tiny" / "1" / name).touch()
    assert refusal(root) == f"tiny/1: files that the manifest does not list: [{name!r}]"


def test_a_folder_in_a_versions_folder_is_refused(root: Path) -> None:
    write_versions(root, 1)
    (root / "tiny" / "1" / "assets").mkdir()
    assert refusal(root) == "tiny/1: files that the manifest does not list: ['assets']"


def test_a_manifest_that_lists_itself_is_refused(root: Path) -> None:
    files = [{"name": name, "sha256": "0" * 64, "bytes": 9} for name in ("m1.onnx", MANIFEST_FILE)]
    contents = {**tiny.manifest(1), "files": files}
    folder = root / "tiny" / "1"
    folder.mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text(tomli_w.dumps(contents))
    (folder / "m1.onnx").write_bytes(b"")
    assert refusal(root).startswith("tiny/1/")


@pytest.fixture
def public_root() -> Iterator[Path]:
    """A root whose parents everyone may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name) / "models"


@pytest.mark.parametrize("place", [".", "tiny", "tiny/1", "tiny/1/ensemble.toml", "tiny/1/m1.onnx"])
def test_what_may_not_be_read_is_refused(public_root: Path, place: str) -> None:
    write_versions(public_root, 1)
    closed = public_root / place
    mode = closed.stat().st_mode
    closed.chmod(0)
    try:
        with unprivileged():
            message = refusal(public_root)
    finally:
        closed.chmod(mode)
    assert message.endswith(": Permission denied")


def test_a_versions_folder_that_may_be_entered_and_not_listed_is_refused(public_root: Path) -> None:
    write_versions(public_root, 1)
    (public_root / "tiny" / "1").chmod(0o311)
    with unprivileged():
        assert refusal(public_root) == "tiny/1: Permission denied"


# Refusals: strategies -----------------------------------------------------------------------------------------------


def test_a_default_strategy_that_is_not_known_is_refused(root: Path) -> None:
    tiny.write_ensemble(root, default_strategy="oracle")
    known = ", ".join(name for name in STRATEGIES if name != "stacking")
    assert refusal(root) == f"tiny/1/ensemble.toml: default_strategy: expected one of {known}, got 'oracle'"


POOLS = ", ".join(name for name in STRATEGIES if name != STACKING)


@pytest.mark.parametrize(
    ("write", "strategy", "known"),
    [
        (tiny.write_ensemble, "stacking", POOLS),
        (tiny.write_ensemble, "cascade", POOLS),
        (tiny.write_ensemble, "mean", POOLS),
        (tiny.write_ensemble, "", POOLS),
        (tiny.write_stacked, "cascade", f"{POOLS}, stacking"),
        (tiny.write_cascade, "stacking", f"{POOLS}, cascade"),
        (tiny.write_regression, "average", "mean, weighted, median"),
        (tiny.write_regression, "cascade", "mean, weighted, median"),
    ],
)
def test_a_default_strategy_that_the_ensemble_does_not_have_is_refused(
    root: Path, write: Callable[..., Path], strategy: str, known: str
) -> None:
    write(root, name="tiny", default_strategy=strategy)
    assert refusal(root) == f"tiny/1/ensemble.toml: default_strategy: expected one of {known}, got {strategy!r}"


@pytest.mark.parametrize("strategy", ["stacking", "cascade", "oracle", "mean", ""])
@pytest.mark.parametrize("write", [tiny.write_ensemble, tiny.write_stacked])
def test_a_cascade_of_a_strategy_that_cannot_fuse_stages_is_refused(
    root: Path, write: Callable[..., Path], strategy: str
) -> None:
    write(root, name="tiny", cascade=tiny.cascade(strategy=strategy))
    assert refusal(root) == f"tiny/1/ensemble.toml: cascade: strategy: expected one of {POOLS}, got {strategy!r}"


@pytest.mark.parametrize("strategy", ["log_linear", "mean", "average"])
def test_weights_for_a_strategy_that_is_not_fitted_for_regressions_are_refused(root: Path, strategy: str) -> None:
    members = tiny.regression_manifest(3)["members"]
    members[1]["weights"] = {strategy: 1.0}
    tiny.write_regression(root, members=members)
    assert refusal(root) == (
        f"regression/1/ensemble.toml: member 'm2': weights for ['{strategy}']; expected some of weighted"
    )


@pytest.mark.parametrize("strategy", ["oracle", "average", "vote"])
def test_weights_for_a_strategy_that_is_not_fitted_are_refused(root: Path, strategy: str) -> None:
    members = tiny.manifest(3)["members"]
    members[1]["weights"] = {strategy: 1.0}
    tiny.write_ensemble(root, members=members)
    message = refusal(root)
    assert message.startswith("tiny/1/ensemble.toml: member 'm2': weights for ")
    assert repr(strategy) in message


# Refusals: graphs ---------------------------------------------------------------------------------------------------


def write(root: Path, **files: bytes | None) -> None:
    """The tiny ensemble with some of its files (m1, m2, vectors) replaced or, with None, left out, and listed truly."""
    x = tiny.rows(8)
    good: dict[str, bytes | None] = {
        **{f"m{k + 1}": tiny.linear_member(w) for k, w in enumerate(tiny.coefficients(N_MEMBERS))},
        "vectors": tiny.vectors(x, tiny.answers(x, N_MEMBERS)),
    }
    named = {f"{key}.onnx" if key != "vectors" else VECTORS_FILE: data for key, data in {**good, **files}.items()}
    listed = {name: data for name, data in named.items() if data is not None}
    tiny.write_version(root, tiny.manifest(N_MEMBERS), listed)


def two_classes() -> bytes:
    return tiny.linear_member(tiny.coefficients(1)[0][:, :2])


def five_features() -> bytes:
    return tiny.linear_member(np.ones((5, 3), dtype=np.float32))


def logits() -> bytes:
    return tiny.graph(
        [helper.make_node("MatMul", ["X", "W"], ["probabilities"])],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        {"W": tiny.coefficients(N_MEMBERS)[1]},
    )


def of_logarithms() -> bytes:
    """Answers what is not a number to every feature below zero."""
    return tiny.graph(
        [
            helper.make_node("Log", ["X"], ["logs"]),
            helper.make_node("MatMul", ["logs", "W"], ["probabilities"]),
        ],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        {"W": tiny.coefficients(N_MEMBERS)[1]},
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "tiny/1/m2.onnx: ONNX Runtime cannot load it: "),
        (b"garbage", f"tiny/1/m2.onnx: {NO_ONNX}"),
        (
            tiny.linear_member(tiny.coefficients(2)[1])[:-20],
            "tiny/1/m2.onnx: expected an ONNX file; got bytes that are none: ",
        ),
        (two_classes(), "tiny/1/m2.onnx: member 'm2': expected 'probabilities' to be tensor(float) of shape [n, 3]"),
        (five_features(), "tiny/1/m2.onnx: member 'm2': expected 'X' to be tensor(float) of shape [n, 4]"),
        (tiny.linear_member(tiny.coefficients(3)[2]), "tiny/1/vectors.npz: member 'm2', row "),
        (logits(), "tiny/1/vectors.npz: replaying it failed: "),
        (of_logarithms(), "tiny/1/vectors.npz: replaying it failed: "),
    ],
    ids=["empty", "garbage", "cut", "classes", "features", "another member", "logits", "not a number"],
)
def test_a_graph_that_is_not_the_member_is_refused(root: Path, data: bytes, message: str) -> None:
    write(root, m2=data)
    assert refusal(root).startswith(message)


def write_final(root: Path, data: bytes | None, *, listed: bool = True) -> None:
    """The tiny ensemble with this file for a final estimator, or with none."""
    x = tiny.rows(8)
    files = {f"m{k + 1}.onnx": tiny.linear_member(w) for k, w in enumerate(tiny.coefficients(N_MEMBERS))}
    files[VECTORS_FILE] = tiny.vectors(x, tiny.answers(x, N_MEMBERS))
    if data is not None and listed:
        files["final.onnx"] = data
    contents = tiny.manifest(N_MEMBERS, final_estimator={"file": "final.onnx", "output": "stacked"})
    folder = tiny.write_version(root, contents, files)
    if data is not None and not listed:
        (folder / "final.onnx").write_bytes(data)


def of_no_distributions() -> bytes:
    """A final estimator that answers the sum of the members' answers."""
    return tiny.graph(
        [helper.make_node("ReduceSum", ["answers", "axis"], ["stacked"], keepdims=0)],
        [helper.make_tensor_value_info("answers", TensorProto.FLOAT, [N_MEMBERS, "n", 3])],
        [helper.make_tensor_value_info("stacked", TensorProto.FLOAT, ["n", 3])],
        {"axis": np.array([0])},
    )


FINAL = tiny.final_estimator(tiny.member_shares(N_MEMBERS))


@pytest.mark.parametrize(
    ("data", "listed", "message"),
    [
        (
            None,
            True,
            "tiny/1/ensemble.toml: Value error, final_estimator: its file 'final.onnx' is not among the files",
        ),
        (
            FINAL,
            False,
            "tiny/1/ensemble.toml: Value error, final_estimator: its file 'final.onnx' is not among the files",
        ),
        (b"garbage", True, f"tiny/1/final.onnx: {NO_ONNX}"),
        (
            tiny.final_estimator(tiny.member_shares(N_MEMBERS + 1)),
            True,
            "tiny/1/final.onnx: final_estimator: expected 'answers' to be tensor(float) of shape [2, n, 3], got ",
        ),
        (
            tiny.linear_member(tiny.coefficients(1)[0]),
            True,
            "tiny/1/final.onnx: final_estimator: expected an input 'answers', got ['X']",
        ),
    ],
    ids=["none", "not listed", "garbage", "other members", "member"],
)
def test_a_final_estimator_that_is_none_is_refused(root: Path, data: bytes | None, listed: bool, message: str) -> None:
    write_final(root, data, listed=listed)
    assert refusal(root).startswith(message)


def test_a_final_estimator_has_to_answer_the_recorded_rows(root: Path) -> None:
    write_final(root, of_no_distributions())
    message = refusal(root)
    assert message.startswith("tiny/1/vectors.npz: replaying it failed: ")
    assert message.endswith(
        "/tiny/1/final.onnx: final_estimator: expected distributions of shape (8, 3), got shape (8, 3): NaN, or no "
        "distribution"
    )


def test_a_regression_that_answers_otherwise_is_refused(root: Path) -> None:
    x = tiny.rows(8)
    files = {f"m{k + 1}.onnx": tiny.regressor(w) for k, w in enumerate(tiny.slopes(2, 1))}
    values = tiny.values(x, 2)
    values[1, 3, 0] += 1
    files[VECTORS_FILE] = tiny.vectors(x, values)
    tiny.write_version(root, tiny.regression_manifest(2), files)
    assert refusal(root).startswith("regression/1/vectors.npz: member 'm2', row 3, target 0: expected ")


def test_a_version_without_vectors_is_refused(root: Path) -> None:
    write(root, vectors=None)
    assert refusal(root) == "tiny/1/vectors.npz: expected test vectors; the manifest lists none"


def test_members_whose_answers_are_no_distributions_are_refused_even_if_the_vectors_agree(root: Path) -> None:
    x = tiny.rows(8)
    answers = tiny.answers(x, N_MEMBERS)
    answers[1] = x @ tiny.coefficients(N_MEMBERS)[1]
    write(root, m2=logits(), vectors=tiny.vectors(x, answers))
    assert refusal(root).startswith("tiny/1/vectors.npz: expected member_probabilities to be distributions")


# The report ---------------------------------------------------------------------------------------------------------


def write_report(root: Path, data: bytes) -> None:
    x = tiny.rows(8)
    member = tiny.linear_member(tiny.coefficients(1)[0])
    files = {"m1.onnx": member, VECTORS_FILE: tiny.vectors(x, tiny.answers(x, 1)), REPORT_FILE: data}
    tiny.write_version(root, tiny.manifest(1), files)


def test_a_report_is_handed_on_as_it_is(root: Path) -> None:
    write_report(root, b'{"accuracy": 0.9}')
    assert Repository.load(root).get("tiny").report == {"accuracy": 0.9}


def test_an_ensemble_needs_no_report(root: Path) -> None:
    write_versions(root, 1)
    assert Repository.load(root).get("tiny").report is None


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"\xff", b"[" * 100_000, b"9" * 5000], ids=["empty", "garbage", "bytes", "deep", "long"]
)
def test_a_report_that_is_no_json_is_refused(root: Path, data: bytes) -> None:
    write_report(root, data)
    assert refusal(root).startswith("tiny/1/report.json: not JSON: ")


# Made by hand -------------------------------------------------------------------------------------------------------


def test_graphs_and_the_names_of_classes_make_a_version(root: Path) -> None:
    write_by_hand(root, place="tiny/3")
    ensemble = Repository.load(root).get("tiny", 3)
    x = tiny.rows(5)
    assert ensemble.names == ["m1", "m2"]
    assert_allclose(ensemble.run(x), tiny.answers(x, N_MEMBERS), atol=1e-6)


def test_only_a_published_version_is_verified(root: Path) -> None:
    write_by_hand(root, place="tiny/1")
    write_versions(root, 2)
    repository = Repository.load(root, versions="all")
    assert [repository.get("tiny", version).verified for version in (1, 2)] == [False, True]


def test_a_hand_made_version_may_say_its_name_and_number(root: Path) -> None:
    write_by_hand(root, f"name = 'tiny'\nversion = 1\n{BY_HAND}")
    assert Repository.load(root).get("tiny").manifest.version == 1


@pytest.mark.parametrize("line", ["name = 'other'", "version = 2"])
def test_a_hand_made_version_in_anothers_folder_is_refused(root: Path, line: str) -> None:
    write_by_hand(root, f"{line}\n{BY_HAND}")
    message = refusal(root)
    assert message.startswith("tiny/1/ensemble.toml: says ensemble ")
    assert message.endswith("stands in tiny/1")


@pytest.mark.parametrize("place", ["a.b/1", "tiny/one", "tiny/0"])
def test_a_hand_made_version_must_stand_in_a_folder_that_names_it(root: Path, place: str) -> None:
    folder = write_by_hand(root, place=place)
    with pytest.raises(InvalidRepository, match=f"expected to stand in <name>/<version>, got {place}$"):
        load_version(folder)


def test_a_card_and_a_report_may_lie_beside_hand_made_files(root: Path) -> None:
    folder = write_by_hand(root)
    (folder / "README.md").write_text("# Mine")
    (folder / REPORT_FILE).write_text('{"accuracy": 0.9}')
    assert Repository.load(root).get("tiny").report == {"accuracy": 0.9}


@pytest.mark.parametrize("name", ["m3.onnx", VECTORS_FILE, "m1.pkl", ".hidden", "two\nlines"])
def test_a_file_that_no_member_names_is_refused(root: Path, name: str) -> None:
    (write_by_hand(root) / name).touch()
    assert refusal(root) == f"tiny/1: files that no member names: [{name!r}]"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "No such file or directory"),
        (move_behind_a_symlink, f"{REGULAR}a symbolic link"),
        (make_a_folder, f"{REGULAR}drwx"),
        (make_a_fifo, f"{REGULAR}prw"),
        (lambda path: os.truncate(path, GRAPH_LIMIT + 1), f"expected at most {GRAPH_LIMIT} bytes, got "),
    ],
    ids=["missing", "symlink", "folder", "fifo", "too big"],
)
def test_a_hand_made_file_that_cannot_be_read_is_refused(root: Path, spoil: Callable[[Path], Any], reason: str) -> None:
    spoil(write_by_hand(root) / "m2.onnx")
    assert refusal(root).startswith(f"tiny/1/m2.onnx: {reason}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"default_strategy = 'oracle'\n{BY_HAND}", "default_strategy: expected one of "),
        (f"{BY_HAND}weights = {{ vote = 1.0 }}", "member 'm2.onnx': weights for ['vote']; expected some of "),
        ("[[members]]\nfile = 'm1.onnx'", "classes: Field required"),
        (f"classes = {tiny.CLASSES}", "members: Field required"),
        (f"colour = 'red'\n{BY_HAND}", "colour: Extra inputs are not permitted"),
    ],
)
def test_a_hand_made_manifest_is_as_strict(root: Path, text: str, message: str) -> None:
    write_by_hand(root, text)
    assert refusal(root).startswith(f"tiny/1/ensemble.toml: {message}")


def test_a_hand_made_graph_must_be_one(root: Path) -> None:
    write_by_hand(root, m2=b"garbage")
    assert refusal(root).startswith("tiny/1/m2.onnx: expected an ONNX file; got bytes that are none: ")


def test_a_hand_made_member_must_answer_distributions(root: Path) -> None:
    write_by_hand(root, m2=logits())
    assert refusal(root).startswith("tiny/1: made-up rows, 3 at a time: ")


BY_HAND_REGRESSION = BY_HAND.replace("classes = ", "task = 'regression'\ntargets = ").replace(
    str(tiny.CLASSES), str(tiny.TARGETS)
)


def write_regression_by_hand(root: Path, text: str = BY_HAND_REGRESSION) -> Path:
    m1, m2 = (tiny.regressor(slopes) for slopes in tiny.slopes(2, 2))
    return write_by_hand(root, text, m1=m1, m2=m2)


def test_graphs_and_the_names_of_targets_make_a_regression(root: Path) -> None:
    write_regression_by_hand(root)
    ensemble = Repository.load(root).get("tiny")
    assert (ensemble.manifest.task, ensemble.manifest.targets) == ("regression", tiny.TARGETS)
    assert ensemble.manifest.default_strategy == "mean"
    assert not ensemble.verified
    x = tiny.rows(5)
    assert_allclose(ensemble.run(x), tiny.values(x, 2, 2), rtol=1e-4, atol=1e-4)
    prediction = predict(ensemble, x, make_plan(ensemble, Options(strategy="median")))
    assert_allclose(prediction.fused.probabilities, np.median(tiny.values(x, 2, 2), axis=0), rtol=1e-4, atol=1e-4)


def test_a_hand_made_version_may_have_a_final_estimator(root: Path) -> None:
    said = "final_estimator = {file = 'final.onnx', output = 'stacked'}"
    write_by_hand(root, f"{said}\ndefault_strategy = 'stacking'\n{BY_HAND}", final=FINAL)
    ensemble = Repository.load(root).get("tiny")
    x = tiny.rows(5)
    prediction = predict(ensemble, x, make_plan(ensemble, Options()))
    assert prediction.strategy == "stacking"
    assert_allclose(prediction.fused.probabilities, tiny.stacked_answers(tiny.answers(x, 2)), atol=1e-6)


def test_a_hand_made_version_may_have_stages(root: Path) -> None:
    stages = "stages = [{members = ['m2'], threshold = 0.7}, {members = ['m1']}]"
    write_by_hand(root, f"default_strategy = 'cascade'\ncascade = {{strategy = 'vote', {stages}}}\n{BY_HAND}")
    ensemble = Repository.load(root).get("tiny")
    plan = make_plan(ensemble, Options())
    assert (plan.rule, [stage.members for stage in plan.stages]) == ("vote", [(1,), (0,)])
    assert predict(ensemble, tiny.rows(5), plan).stages is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            BY_HAND_REGRESSION.replace("task = 'regression'\n", ""),
            "classes: Field required: a classification has classes",
        ),
        (
            BY_HAND.replace("classes", "task = 'regression'\nclasses"),
            "targets: Field required: a regression has targets",
        ),
        (
            f"default_strategy = 'vote'\n{BY_HAND_REGRESSION}",
            "default_strategy: expected one of mean, weighted, median",
        ),
        (
            f"default_strategy = 'stacking'\n{BY_HAND}",
            f"default_strategy: expected one of {POOLS}, got 'stacking'",
        ),
        (
            f"cascade = {{strategy = 'stacking', stages = [{{members = ['m1']}}, {{members = ['m2']}}]}}\n{BY_HAND}",
            f"cascade: strategy: expected one of {POOLS}, got 'stacking'",
        ),
        (
            f"cascade = {{strategy = 'average', stages = [{{members = ['m1']}}, {{members = ['m3']}}]}}\n{BY_HAND}",
            "cascade: expected members of the ensemble, m1, m2; got 'm3'",
        ),
        (
            f"{BY_HAND_REGRESSION}weights = {{log_linear = 1.0}}",
            "member 'm2.onnx': weights for ['log_linear']; expected some of weighted",
        ),
    ],
    ids=["targets", "classes", "vote", "stacking", "cascade of stacking", "stranger", "weights"],
)
def test_what_a_hand_made_version_cannot_have_is_refused(root: Path, text: str, message: str) -> None:
    write = write_regression_by_hand if "log_linear" in text else write_by_hand
    write(root, text)
    assert refusal(root).startswith(f"tiny/1/ensemble.toml: {message}")


def test_a_hand_made_final_estimator_that_is_not_there_is_refused(root: Path) -> None:
    write_by_hand(root, f"final_estimator = {{file = 'final.onnx', output = 'stacked'}}\n{BY_HAND}")
    assert refusal(root) == "tiny/1/final.onnx: No such file or directory"


def test_a_hand_made_final_estimator_must_answer_distributions(root: Path) -> None:
    said = "final_estimator = {file = 'final.onnx', output = 'stacked'}"
    write_by_hand(root, f"{said}\n{BY_HAND}", final=of_no_distributions())
    assert refusal(root).startswith("tiny/1: made-up rows, 3 at a time: ")
