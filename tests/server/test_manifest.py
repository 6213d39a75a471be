import tomllib
from collections.abc import Callable
from typing import Any

import pytest
import tomli_w

from server.errors import InvalidRepository
from server.manifest import InputSpec, Manifest, parse_manifest
from tests import tiny

WHERE = "models/tiny/1/ensemble.toml"
Contents = dict[str, Any]


def contents() -> Contents:
    """A valid manifest with three members; a test changes what it is about."""
    files = [{"name": f"m{k + 1}.onnx", "sha256": "0" * 64, "bytes": 100} for k in range(3)]
    return {**tiny.manifest(3), "files": files}


def parse(document: Contents) -> Manifest:
    return parse_manifest(tomli_w.dumps(document).encode(), where=WHERE)


def refusal(data: bytes) -> str:
    """The message, proved to be one line that names the file."""
    with pytest.raises(InvalidRepository) as caught:
        parse_manifest(data, where=WHERE)
    message = caught.value.message
    assert message.startswith(f"{WHERE}: ")
    assert message.isprintable()
    return message.removeprefix(f"{WHERE}: ")


def test_a_manifest_is_what_its_file_says() -> None:
    manifest = parse(contents())
    assert (manifest.name, manifest.version, manifest.classes) == ("tiny", 1, ["red", "green", "blue"])
    assert manifest.inputs[0].shape == [4]
    assert [member.name for member in manifest.members] == ["m1", "m2", "m3"]
    assert manifest.members[0].weights == {"weighted": 3.0, "log_linear": 1.0}
    assert manifest.members[2].temperature == 2.0
    assert [file.bytes for file in manifest.files] == [100, 100, 100]


def test_what_a_manifest_leaves_out_has_a_default() -> None:
    document = contents()
    for key in ("format", "description", "default_strategy"):
        del document[key]
    for member in document["members"]:
        for key in ("framework", "weights", "temperature", "cost_us"):
            del member[key]
    del document["inputs"][0]["datatype"]
    manifest = parse(document)
    assert (manifest.format, manifest.default_strategy, manifest.max_batch_size) == (1, "average", 4096)
    assert manifest.inputs[0].datatype == "FP32"
    assert (manifest.members[0].weights, manifest.members[0].temperature) == ({}, 1.0)
    assert (manifest.task, manifest.targets, manifest.outputs) == ("classification", [], ["red", "green", "blue"])
    assert (manifest.on_failure, manifest.quorum) == ("degrade", None)
    assert (manifest.final_estimator, manifest.cascade) == (None, None)


def regression(**changes: Any) -> Contents:
    """A valid manifest of a regression with three members and two targets."""
    files = [{"name": f"m{k + 1}.onnx", "sha256": "0" * 64, "bytes": 100} for k in range(3)]
    return {**tiny.regression_manifest(3, targets=tiny.TARGETS), "files": files, **changes}


def stacked(**changes: Any) -> Contents:
    """A valid manifest with a final estimator."""
    document = contents()
    document["files"].append({"name": "final.onnx", "sha256": "0" * 64, "bytes": 100})
    return {**document, "final_estimator": {"file": "final.onnx", "output": "stacked", **changes}}


def cascading(**changes: Any) -> Contents:
    """A valid manifest with a cascade: m1, then m2 and m3."""
    return {**contents(), "cascade": {**tiny.cascade(), **changes}}


def test_a_regression_has_targets() -> None:
    manifest = parse(regression())
    assert (manifest.task, manifest.classes, manifest.targets) == ("regression", [], ["price", "weight"])
    assert manifest.outputs == ["price", "weight"]
    assert manifest.default_strategy == "mean"
    assert parse(regression(default_strategy="median")).default_strategy == "median"


def test_a_manifest_may_name_a_final_estimator() -> None:
    estimator = parse(stacked()).final_estimator
    assert estimator is not None
    assert (estimator.file, estimator.output) == ("final.onnx", "stacked")
    # It may be in a file of members.
    estimator = parse(stacked(file="m1.onnx")).final_estimator
    assert estimator is not None
    assert estimator.file == "m1.onnx"


def test_a_manifest_may_put_its_members_into_stages() -> None:
    cascade = parse(cascading(measure="agreement", tolerance=0.002)).cascade
    assert cascade is not None
    assert (cascade.strategy, cascade.measure, cascade.tolerance) == ("average", "agreement", 0.002)
    assert [(stage.members, stage.threshold) for stage in cascade.stages] == [(["m1"], 0.8), (["m2", "m3"], 0.8)]


def test_what_a_cascade_leaves_out_has_a_default() -> None:
    """And it may leave out members."""
    cascade = parse(cascading(stages=[{"members": ["m3"]}, {"members": ["m1"]}])).cascade
    assert cascade is not None
    assert (cascade.measure, cascade.tolerance) == ("confidence", None)
    assert [stage.threshold for stage in cascade.stages] == [1, 1]


def test_a_manifest_may_say_how_much_failure_is_borne() -> None:
    manifest = parse({**contents(), "on_failure": "fail", "quorum": 3})
    assert (manifest.on_failure, manifest.quorum) == ("fail", 3)


@pytest.mark.parametrize(
    "document",
    [contents(), regression(), stacked(), cascading()],
    ids=["plain", "regression", "final estimator", "cascade"],
)
def test_a_manifest_written_back_reads_the_same(document: Contents) -> None:
    manifest = parse(document)
    assert parse(manifest.model_dump(exclude_none=True)) == manifest


def test_a_manifest_does_not_change_in_memory() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(contents()).version = 2  # type: ignore[misc]


def test_whole_numbers_will_do_where_fractions_are_expected() -> None:
    document = contents()
    document["members"][0] |= {"weights": {"weighted": 2}, "temperature": 1, "cost_us": 0}
    assert parse(document).members[0].weights == {"weighted": 2.0}


def test_members_may_share_a_file_behind_gates_of_their_own() -> None:
    document = contents()
    for k, member in enumerate(document["members"]):
        member |= {"file": "m1.onnx", "gate": k}
    assert [member.gate for member in parse(document).members] == [0, 1, 2]


@pytest.mark.parametrize("name", ["a", "_", "0", "a-b_C", "x" * 64])
def test_a_name_is_of_letters_digits_dash_and_underscore(name: str) -> None:
    assert parse({**contents(), "name": name}).name == name


BAD_NAMES = ["", "-a", "a.b", "a/b", "..", "a b", "é", "a\n", "x" * 65, "a\x00"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_is_nothing_else(name: str) -> None:
    assert refusal(tomli_w.dumps({**contents(), "name": name}).encode()).startswith("name: String should ")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_members_name_is_nothing_else_either(name: str) -> None:
    document = contents()
    document["members"][1]["name"] = name
    assert refusal(tomli_w.dumps(document).encode()).startswith("members[1].name: String should ")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../m1.onnx", "/etc/passwd", "a/b", ".hidden", "a\\b", "a\n", "x" * 129]
)
def test_a_file_is_a_plain_name_in_the_versions_folder(name: str) -> None:
    document = contents()
    document["files"][2]["name"] = name
    assert refusal(tomli_w.dumps(document).encode()).startswith("files[2].name: String should ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "name: Field required"),
        (b"name", "not TOML: "),
        (b"a = 1\na = 2\n", "not TOML: Cannot overwrite a value (at line 2, column 6)"),
        (b"\x00", "not TOML: "),
        (b"\xef\xbb\xbfname = 'a'", "not TOML: "),
        (b"a = " + b"[" * 10_000, "not TOML: "),
        (b"a = " + b"{a=" * 10_000, "not TOML: "),
        (b"a = " + b"9" * 10_000, "not TOML: "),
        (b"name = 'caf\xe9'", "expected UTF-8, got byte 0xe9 at 11"),
        (b"\x80\x04pickle", "expected UTF-8, got byte 0x80 at 0"),
    ],
    ids=["empty", "a key", "a key twice", "NUL", "BOM", "deep list", "deep table", "long integer", "Latin-1", "pickle"],
)
def test_bytes_that_are_no_toml_are_refused(data: bytes, message: str) -> None:
    assert refusal(data).startswith(message)


def change(**changes: Any) -> Callable[[Contents], None]:
    return lambda document: document.update(changes)


def drop(key: str) -> Callable[[Contents], None]:
    return lambda document: document.pop(key)


def change_input(**changes: Any) -> Callable[[Contents], None]:
    return lambda document: document["inputs"][0].update(changes)


def change_member(index: int, **changes: Any) -> Callable[[Contents], None]:
    return lambda document: document["members"][index].update(changes)


def change_file(index: int, **changes: Any) -> Callable[[Contents], None]:
    return lambda document: document["files"][index].update(changes)


NAN, INFINITY = float("nan"), float("inf")
FAULTS: list[tuple[Callable[[Contents], None], str, str]] = [
    (drop("name"), "name", "required"),
    (drop("classes"), "classes", "required"),
    (drop("members"), "members", "required"),
    (drop("files"), "files", "required"),
    (change(colour="red"), "colour", "not permitted, got 'red'"),
    (change(**{"two\nlines": 1}), "'two\\nlines'", "not permitted, got 1"),
    (change(format=2), "format", "should be 1, got 2"),
    (change(name=7), "name", "valid string, got 7"),
    (change(version="1"), "version", "valid integer, got '1'"),
    (change(version=True), "version", "valid integer, got True"),
    (change(version=1.0), "version", "valid integer, got 1.0"),
    (change(version=0), "version", "greater than or equal to 1, got 0"),
    (change(version=-3), "version", "greater than or equal to 1, got -3"),
    (change(version=10**9), "version", "less than 1000000000, got 1000000000"),
    (change(version=tomllib.loads("at = 1979-05-27")["at"]), "version", "valid integer"),
    (change(task="ranking"), "task", "should be 'classification' or 'regression', got 'ranking'"),
    (change(task="regression"), "targets", "required"),
    (change(max_batch_size=0), "max_batch_size", "greater than or equal to 1, got 0"),
    (change(max_batch_size=1 << 17), "max_batch_size", "less than or equal to 65536"),
    (change(max_batch_size=True), "max_batch_size", "valid integer, got True"),
    (change(classes="red"), "classes", "valid list, got 'red'"),
    (change(classes=["red"]), "classes", "at least 2 items"),
    (change(classes=["red", 2, "blue"]), "classes[1]", "valid string, got 2"),
    (change(classes=["red", "green", "red"]), "classes", "'red' is named more than once"),
    (change(inputs="X"), "inputs", "got 'X'"),
    (change_input(name="a/b"), "inputs[0].name", "match pattern"),
    (change_input(datatype="UINT8"), "inputs[0].datatype", "should be 'FP32' or 'BYTES', got 'UINT8'"),
    (change_input(shape=[]), "inputs[0].shape", "at least 1 item"),
    (change_input(shape=[1] * 9), "inputs[0].shape", "at most 8 items"),
    (change_input(shape=[28, 0]), "inputs[0].shape[1]", "greater than or equal to 1, got 0"),
    (change_input(shape=[-1]), "inputs[0].shape[0]", "greater than or equal to 1, got -1"),
    (change_input(shape=[4.0]), "inputs[0].shape[0]", "valid integer, got 4.0"),
    (change_input(shape=["4"]), "inputs[0].shape[0]", "valid integer, got '4'"),
    (change_input(shape=4), "inputs[0].shape", "valid list, got 4"),
    (change_input(shape=[(1 << 20) + 1]), "inputs[0].shape[0]", "less than or equal to 1048576"),
    (change_input(low=NAN), "inputs[0].low", "finite number, got nan"),
    (change_input(high=INFINITY), "inputs[0].high", "finite number, got inf"),
    (change_input(low=2.0, high=1.0), "inputs[0]", "expected low below high, got 2.0 and 1.0"),
    (change_input(low=1.0, high=1.0), "inputs[0]", "expected low below high, got 1.0 and 1.0"),
    (change_input(missing=1), "inputs[0].missing", "valid boolean, got 1"),
    (change_input(missing="yes"), "inputs[0].missing", "valid boolean, got 'yes'"),
    (change_input(unknown="ignore"), "inputs[0].unknown", "should be 'refuse' or 'accept', got 'ignore'"),
    (change_input(unknown=True), "inputs[0].unknown", "should be 'refuse' or 'accept', got True"),
    (change_input(categories=["a"]), "inputs[0]", "categories are of text, got some for numbers"),
    (change_input(datatype="BYTES", shape=[1], categories=[]), "inputs[0].categories", "at least 1 item"),
    (change_input(datatype="BYTES", shape=[1], categories=["a", 1]), "inputs[0].categories[1]", "valid string, got 1"),
    (change_input(datatype="BYTES", shape=[1], categories="a"), "inputs[0].categories", "valid list, got 'a'"),
    (change_input(datatype="BYTES"), "inputs[0]", "text has shape [1], and neither low nor high; got [4], None, None"),
    (change_input(datatype="BYTES", shape=[1, 1]), "inputs[0]", "text has shape [1]"),
    (change_input(datatype="BYTES", shape=[1], low=0.0), "inputs[0]", "text has shape [1]"),
    (change_input(datatype="BYTES", shape=[1], high=0.0), "inputs[0]", "text has shape [1]"),
    (change_input(colour="red"), "inputs[0].colour", "not permitted, got 'red'"),
    (change(inputs=[]), "inputs", "at least 1 item"),
    (
        change(inputs=[{"name": "X", "shape": [1]}, {"name": "X", "shape": [2]}]),
        "inputs",
        "'X' is named more than once",
    ),
    (change(members=[]), "members", "at least 1 item"),
    (change_member(1, name="m1"), "members", "'m1' is named more than once"),
    (change_member(1, colour="red"), "members[1].colour", "not permitted"),
    (change_member(1, file="m9.onnx"), "member 'm2'", "'m9.onnx' is not among the files"),
    (change_member(1, output=1), "members[1].output", "valid string, got 1"),
    (change_member(1, weights=2.0), "members[1].weights", "valid dictionary, got 2.0"),
    (change_member(1, weights={"vote": -0.1}), "members[1].weights.vote", "greater than or equal to 0, got -0.1"),
    (change_member(1, weights={"vote": NAN}), "members[1].weights.vote", "finite number, got nan"),
    (change_member(1, weights={"vote": INFINITY}), "members[1].weights.vote", "finite number, got inf"),
    (change_member(1, weights={"vote": "1"}), "members[1].weights.vote", "valid number, got '1'"),
    (change_member(1, weights={"vote": True}), "members[1].weights.vote", "valid number, got True"),
    (change_member(1, temperature=0), "members[1].temperature", "greater than or equal to 0.001, got 0"),
    (change_member(1, temperature=-1.0), "members[1].temperature", "got -1.0"),
    (change_member(1, temperature=1e-300), "members[1].temperature", "got 1e-300"),
    (change_member(1, temperature=1e39), "members[1].temperature", "got 1e+39"),
    (change_member(1, temperature=NAN), "members[1].temperature", "got nan"),
    (change_member(1, cost_us=-1), "members[1].cost_us", "greater than or equal to 0, got -1"),
    (change_member(1, gate=-1), "members[1].gate", "greater than or equal to 0, got -1"),
    (change_member(1, gate=True), "members[1].gate", "valid integer, got True"),
    (change_file(1, name="m1.onnx"), "files", "'m1.onnx' is named more than once"),
    (change_file(1, sha256="0" * 63), "files[1].sha256", "match pattern"),
    (change_file(1, sha256="0" * 65), "files[1].sha256", "match pattern"),
    (change_file(1, sha256="G" * 64), "files[1].sha256", "match pattern"),
    (change_file(1, sha256="A" * 64), "files[1].sha256", "match pattern"),
    (change_file(1, bytes=-1), "files[1].bytes", "greater than or equal to 0, got -1"),
    (change_file(1, bytes="100"), "files[1].bytes", "valid integer, got '100'"),
    (change_file(1, bytes=1 << 60), "files[1].bytes", "less than"),
    (change(files=[]), "files", "at least 1 item"),
]


@pytest.mark.parametrize(("spoil", "field", "what"), FAULTS, ids=[f"{field}: {what}" for _, field, what in FAULTS])
def test_a_fault_is_told_in_one_line_by_field_and_by_what_came(
    spoil: Callable[[Contents], None], field: str, what: str
) -> None:
    document = contents()
    spoil(document)
    message = refusal(tomli_w.dumps(document).encode())
    assert f"{field}: " in message
    assert what in message


STAGES = tiny.cascade()["stages"]
REFUSALS: list[tuple[str, Contents, str]] = [
    # Outputs.
    ("no classes", {**contents(), "classes": []}, "classes: Field required: a classification has classes"),
    (
        "one class",
        {**contents(), "classes": ["red"]},
        "classes: List should have at least 2 items, not 1, got ['red']",
    ),
    (
        "an empty class",
        {**contents(), "classes": ["red", ""]},
        "classes[1]: String should have at least 1 character, got ''",
    ),
    (
        "targets of a classification",
        {**contents(), "targets": ["price"]},
        "targets: a classification has none, but classes; got 1",
    ),
    (
        "a regression of classes",
        {**contents(), "task": "regression"},
        "targets: Field required: a regression has targets",
    ),
    (
        "classes of a regression",
        regression(classes=["a", "b"]),
        "classes: a regression has none, but targets; got 2",
    ),
    ("no targets", regression(targets=[]), "targets: Field required: a regression has targets"),
    ("a target twice", regression(targets=["a", "a"]), "Value error, targets: 'a' is named more than once"),
    ("an empty target", regression(targets=[""]), "targets[0]: String should have at least 1 character, got ''"),
    (
        "a long target",
        regression(targets=["x" * 257]),
        "targets[0]: String should have at most 256 characters",
    ),
    (
        "many targets",
        regression(targets=[f"t{k}" for k in range(4097)]),
        "targets: List should have at most 4096 items after validation, not 4097",
    ),
    ("a target that is a number", regression(targets=[1]), "targets[0]: Input should be a valid string, got 1"),
    # Failure.
    (
        "another way to fail",
        {**contents(), "on_failure": "retry"},
        "on_failure: Input should be 'fail' or 'degrade', got 'retry'",
    ),
    (
        "a quorum of none",
        {**contents(), "quorum": 0},
        "quorum: Input should be greater than or equal to 1, got 0",
    ),
    (
        "a large quorum",
        {**contents(), "quorum": 257},
        "quorum: Input should be less than or equal to 256, got 257",
    ),
    ("half a quorum", {**contents(), "quorum": 1.5}, "quorum: Input should be a valid integer, got 1.5"),
    ("a true quorum", {**contents(), "quorum": True}, "quorum: Input should be a valid integer, got True"),
    # Final estimators.
    (
        "a final estimator whose file is not there",
        stacked(file="m4.onnx"),
        "Value error, final_estimator: its file 'm4.onnx' is not among the files",
    ),
    (
        "a final estimator elsewhere",
        stacked(file="../final.onnx"),
        "final_estimator.file: String should match pattern '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$', got '../final.onnx'",
    ),
    (
        "a final estimator without an output",
        {**stacked(), "final_estimator": {"file": "final.onnx"}},
        "final_estimator.output: Field required",
    ),
    (
        "more of a final estimator",
        stacked(kind="logistic"),
        "final_estimator.kind: Extra inputs are not permitted, got 'logistic'",
    ),
    (
        "a final estimator of a regression",
        regression(final_estimator={"file": "m1.onnx", "output": "stacked"}),
        "Value error, a regression has neither a final_estimator nor a cascade",
    ),
    # Cascades.
    (
        "a cascade of a regression",
        regression(cascade=tiny.cascade(strategy="mean")),
        "Value error, a regression has neither a final_estimator nor a cascade",
    ),
    (
        "a cascade that does not fuse",
        {**contents(), "cascade": {"stages": STAGES}},
        "cascade.strategy: Field required",
    ),
    (
        "another measure",
        cascading(measure="entropy"),
        "cascade.measure: Input should be 'confidence' or 'agreement', got 'entropy'",
    ),
    (
        "a negative tolerance",
        cascading(tolerance=-0.1),
        "cascade.tolerance: Input should be greater than or equal to 0, got -0.1",
    ),
    (
        "a cascade of one stage",
        cascading(stages=[{"members": ["m1"]}]),
        "cascade.stages: List should have at least 2 items after validation, not 1, got [{'members': ['m1']}]",
    ),
    (
        "a stage of nobody",
        cascading(stages=[{"members": []}, {"members": ["m1"]}]),
        "cascade.stages[0].members: List should have at least 1 item after validation, not 0, got []",
    ),
    (
        "a threshold above one",
        cascading(stages=[{"members": ["m1"], "threshold": 1.5}, {"members": ["m2"]}]),
        "cascade.stages[0].threshold: Input should be less than or equal to 1, got 1.5",
    ),
    (
        "a negative threshold",
        cascading(stages=[{"members": ["m1"]}, {"members": ["m2"], "threshold": -0.5}]),
        "cascade.stages[1].threshold: Input should be greater than or equal to 0, got -0.5",
    ),
    (
        "a threshold that is no number",
        cascading(stages=[{"members": ["m1"], "threshold": NAN}, {"members": ["m2"]}]),
        "cascade.stages[0].threshold: Input should be less than or equal to 1, got nan",
    ),
    (
        "more of a stage",
        cascading(stages=[{"members": ["m1"], "name": "fast"}, {"members": ["m2"]}]),
        "cascade.stages[0].name: Extra inputs are not permitted, got 'fast'",
    ),
    (
        "a stage of a stranger",
        cascading(stages=[{"members": ["m1"]}, {"members": ["m4", "m5"]}]),
        "Value error, cascade: expected members of the ensemble, m1, m2, m3; got 'm4'",
    ),
    (
        "a member in two stages",
        cascading(stages=[{"members": ["m1", "m2"]}, {"members": ["m2"]}]),
        "Value error, cascade: member 'm2' is in more than one stage",
    ),
]


@pytest.mark.parametrize(("document", "message"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_a_manifest_that_contradicts_itself_is_refused_in_these_words(document: Contents, message: str) -> None:
    assert refusal(tomli_w.dumps(document).encode()) == message


def input_of(**changes: Any) -> InputSpec:
    return parse({**contents(), "inputs": [{"name": "X", "shape": [1], **changes}]}).inputs[0]


@pytest.mark.parametrize(
    "name", ["X", "float_input", "input_1", "input.1", "x:0", "serving_default_x:0", "hours per week", "größe", "n°"]
)
def test_an_input_may_have_any_name_that_frameworks_give(name: str) -> None:
    assert input_of(name=name).name == name


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "..\\..", "a\n", "a\x00", "\x7f", "x" * 129])
def test_an_inputs_name_is_one_line_and_no_path(name: str) -> None:
    document = {**contents(), "inputs": [{"name": name, "shape": [1]}]}
    assert refusal(tomli_w.dumps(document).encode()).startswith("inputs[0].name: String should match pattern")


@pytest.mark.parametrize("name", ["members", "weights", "probabilities", "member_probabilities", "answers", "stacked"])
def test_an_input_cannot_have_the_name_of_a_tensor_of_packed_graphs(name: str) -> None:
    document = {**contents(), "inputs": [{"name": name, "shape": [1]}]}
    assert refusal(tomli_w.dumps(document).encode()).startswith("inputs[0].name: Value error, expected a name other ")


def test_text_may_be_one_of_categories_and_numbers_may_be_missing() -> None:
    job = input_of(datatype="BYTES", categories=["cook", ""], unknown="accept", missing=True)
    assert (job.categories, job.unknown, job.missing) == (["cook", ""], "accept", True)
    age = input_of(missing=True, low=0.0)
    assert (age.datatype, age.low, age.high, age.unknown) == ("FP32", 0, None, "refuse")


def test_too_many_members_are_refused() -> None:
    member = contents()["members"][0]
    document = {**contents(), "members": [{**member, "name": f"m{k}"} for k in range(257)]}
    assert refusal(tomli_w.dumps(document).encode()).startswith("members: List should have at most 256 items")


def test_two_members_cannot_share_a_gate() -> None:
    document = contents()
    for member in document["members"]:
        member |= {"file": "m1.onnx", "gate": 0}
    assert "two of them share gate 0 of 'm1.onnx'" in refusal(tomli_w.dumps(document).encode())


def test_members_of_one_file_are_all_behind_gates_or_none_is() -> None:
    document = contents()
    document["members"][0] |= {"gate": 0}
    document["members"][1] |= {"file": "m1.onnx"}
    assert "member 'm2': has no gate, but others of its file do" in refusal(tomli_w.dumps(document).encode())


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (f"version = 0x{'f' * 10_000}", "version"),
        (f"version = 1\nmax_batch_size = 0x{'f' * 10_000}", "max_batch_size"),
        (f"version = 1\ncreated = 0x{'f' * 10_000}", "created"),
    ],
)
def test_an_integer_too_long_to_be_written_is_refused_in_words(line: str, field: str) -> None:
    assert refusal(tomli_w.dumps(contents()).replace("version = 1", line).encode()).startswith(f"{field}: ")
