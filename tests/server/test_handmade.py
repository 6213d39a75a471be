"""Manifests of a few lines, beside graphs as converters write them."""

import re
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from onnx import TensorProto, helper

from server.app import create_app
from server.errors import InvalidRepository
from server.handmade import Draft, DraftMember, is_hand_made, parse_draft, resolve
from server.manifest import MANIFEST_FILE, Manifest, MemberSpec
from server.repository import load_version
from server.session import Session
from server.settings import Settings
from tests import tiny
from tests.server.rest.client import Client

DOCUMENT = Path(__file__).parents[2] / "docs" / "repository.md"
WHERE = "models/tiny/1/ensemble.toml"
FLOAT, DOUBLE, INT64, STRING, BOOL = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.STRING,
    TensorProto.BOOL,
)
Tensor = tuple[str, int, list[str | int]]
X: Tensor = ("X", FLOAT, ["n", 4])
PROBABILITIES: Tensor = ("probabilities", FLOAT, ["n", 3])
LABEL: Tensor = ("label", INT64, ["n"])


def graph(*inputs: Tensor, outputs: list[Tensor] | None = None) -> bytes:
    """A graph that has these tensors, and is not to be run. Inference cannot tell its outputs' shapes."""
    first, *_ = inputs
    nodes = [
        helper.make_node("Shape", [first[0]], ["shape"]),
        helper.make_node("NonZero", ["shape"], ["places"]),
        helper.make_node("Squeeze", ["places", "axis"], ["sizes"]),
    ]
    wanted = [PROBABILITIES] if outputs is None else outputs
    for name, type_, _ in wanted:
        nodes.append(helper.make_node("Cast", ["sizes"], [f"{name}_values"], to=type_))
        nodes.append(helper.make_node("Reshape", [f"{name}_values", "sizes"], [name]))
    return tiny.graph(
        nodes,
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in wanted],
        {"axis": np.array([0])},
    )


def complete(
    files: Mapping[str, bytes], *members: Mapping[str, Any], classes: list[str] = tiny.CLASSES, **said: Any
) -> Manifest:
    """The manifest of these files; of a member a file, unless the members say otherwise."""
    draft = Draft.model_validate(
        {"classes": classes, "members": list(members) or [{"file": name} for name in files], **said}
    )
    graphs = {name: Session(data, where=f"models/tiny/1/{name}") for name, data in files.items()}
    return resolve(draft, files, graphs, name="tiny", version=7, where=WHERE)


def refusal(files: Mapping[str, bytes], *members: Mapping[str, Any], **said: Any) -> str:
    """The message, proved to be one line."""
    with pytest.raises(InvalidRepository) as caught:
        complete(files, *members, **said)
    assert caught.value.message.isprintable()
    return caught.value.message


# What is read off the folder and the graphs -------------------------------------------------------------------------


def test_a_manifest_that_lists_no_files_is_made_by_hand() -> None:
    assert is_hand_made(b"classes = ['a', 'b']")
    assert not is_hand_made(b"files = []")
    for no_toml in (b"files", b"\xff", b"a = " + b"[" * 10_000):
        assert not is_hand_made(no_toml)


def test_a_draft_has_the_fields_of_a_manifest_but_the_files() -> None:
    assert Draft.model_fields.keys() == Manifest.model_fields.keys() - {"files"}
    assert DraftMember.model_fields.keys() == MemberSpec.model_fields.keys()
    required = [
        name for table in (Draft, DraftMember) for name, field in table.model_fields.items() if field.is_required()
    ]
    assert required == ["members", "file"]


def test_a_draft_leaves_out_what_a_manifest_leaves_out() -> None:
    """Where both have a default, it is the same."""
    for complete_table, table in ((Manifest, Draft), (MemberSpec, DraftMember)):
        for name, field in complete_table.model_fields.items():
            if not field.is_required():
                own = table.model_fields[name]
                assert own.get_default(call_default_factory=True) == field.get_default(call_default_factory=True)


def test_what_is_not_said_is_told_by_the_folder_and_the_graphs() -> None:
    manifest = complete({"forest.onnx": graph(X, outputs=[LABEL, PROBABILITIES]), "net.onnx": graph(X)})
    assert (manifest.name, manifest.version, manifest.default_strategy) == ("tiny", 7, "average")
    [spec] = manifest.inputs
    assert (spec.name, spec.datatype, spec.shape, spec.low) == ("X", "FP32", [4], None)
    members = [(member.name, member.file, member.output) for member in manifest.members]
    assert members == [("forest", "forest.onnx", "probabilities"), ("net", "net.onnx", "probabilities")]
    assert [(file.name, len(file.sha256)) for file in manifest.files] == [("forest.onnx", 64), ("net.onnx", 64)]


def test_what_is_said_stands() -> None:
    member = {
        "file": "m1.onnx",
        "name": "first",
        "output": "probabilities",
        "temperature": 2.0,
        "cost_us": 3.0,
        "tolerance": 0.01,
    }
    manifest = complete(
        {"m1.onnx": graph(X)},
        {**member, "weights": {"weighted": 0.5}, "framework": "hand"},
        inputs=[{"name": "features", "shape": [4], "low": 0.0}],
        description="mine",
        default_strategy="vote",
        max_batch_size=8,
    )
    assert (manifest.description, manifest.default_strategy, manifest.max_batch_size) == ("mine", "vote", 8)
    assert (manifest.inputs[0].name, manifest.inputs[0].low) == ("features", 0)
    assert manifest.members[0].model_dump() == {
        **member,
        "weights": {"weighted": 0.5},
        "framework": "hand",
        "gate": None,
    }


def test_columns_of_a_table_are_read_off_the_graphs() -> None:
    columns: list[Tensor] = [("hours per week", FLOAT, ["n", 1]), ("job", STRING, ["n", 1])]
    manifest = complete({"a.onnx": graph(*columns), "b.onnx": graph(*columns[::-1])})
    assert [(spec.name, spec.datatype, spec.shape) for spec in manifest.inputs] == [
        ("hours per week", "FP32", [1]),
        ("job", "BYTES", [1]),
    ]


@pytest.mark.parametrize("other", ["input", "input_1", "input.1", "x:0", "serving_default_x:0", "a/b", "weights"])
def test_names_of_single_inputs_need_not_agree(other: str) -> None:
    named: Tensor = (other, FLOAT, ["n", 4])
    assert complete({"a.onnx": graph(X), "b.onnx": graph(named)}).inputs[0].name == "X"


def test_a_batch_dimension_may_have_any_name() -> None:
    graphs = {"a.onnx": graph(("X", FLOAT, ["n", 4])), "b.onnx": graph(("X", FLOAT, ["batch", 4]))}
    assert complete(graphs).inputs[0].shape == [4]


def test_an_output_may_leave_the_number_of_classes_open() -> None:
    loose: Tensor = ("scores", FLOAT, ["n", "classes"])
    assert complete({"m1.onnx": graph(X, outputs=[LABEL, loose])}).members[0].output == "scores"
    assert complete({"m1.onnx": graph(X, outputs=[loose, PROBABILITIES])}).members[0].output == "probabilities"


def test_members_of_a_packed_graph_say_their_output() -> None:
    files = {"all.onnx": tiny.packed_members(tiny.coefficients(2), defaults=False)}
    said = [{"name": f"m{k}", "file": "all.onnx", "output": "member_probabilities", "gate": k} for k in range(2)]
    manifest = complete(files, *said)
    assert [spec.name for spec in manifest.inputs] == ["X"]
    assert [member.gate for member in manifest.members] == [0, 1]
    del said[1]["output"]
    assert refusal(files, *said) == "models/tiny/1/all.onnx: expected a member with a gate to say its output"


def test_a_final_estimator_and_stages_that_are_said_stand() -> None:
    files = {"m1.onnx": graph(X), "m2.onnx": graph(X), "final.onnx": tiny.final_estimator(tiny.member_shares(2))}
    said: dict[str, Any] = {
        "final_estimator": {"file": "final.onnx", "output": "stacked"},
        "cascade": tiny.cascade(["m2"], ["m1"], measure="agreement", tolerance=0.01),
        "on_failure": "fail",
        "quorum": 2,
    }
    manifest = complete(files, {"file": "m1.onnx"}, {"file": "m2.onnx"}, **said)
    assert [member.file for member in manifest.members] == ["m1.onnx", "m2.onnx"]
    assert [file.name for file in manifest.files] == ["m1.onnx", "m2.onnx", "final.onnx"]
    assert manifest.final_estimator is not None
    assert manifest.final_estimator.model_dump() == said["final_estimator"]
    assert manifest.cascade is not None
    assert manifest.cascade.model_dump() == said["cascade"]
    assert (manifest.on_failure, manifest.quorum) == ("fail", 2)


# Regressions --------------------------------------------------------------------------------------------------------


def regress(files: Mapping[str, bytes], *members: Mapping[str, Any], targets: list[str], **said: Any) -> Manifest:
    return complete(files, *members, classes=[], task="regression", targets=targets, **said)


def values(*shape: str | int, name: str = "values", type_: int = FLOAT) -> Tensor:
    return (name, type_, list(shape))


@pytest.mark.parametrize(
    ("outputs", "targets", "output"),
    [
        ([values("n", 1)], ["price"], "values"),
        ([values("n", 2)], ["price", "weight"], "values"),
        ([values("n", "targets")], ["price"], "values"),
        ([values("n", 3, name="features"), values("n", 1)], ["price"], "values"),
        ([LABEL, values("n", 1)], ["price"], "values"),
    ],
)
def test_the_values_of_a_regression_are_the_output_of_a_column_a_target(
    outputs: list[Tensor], targets: list[str], output: str
) -> None:
    manifest = regress({"m1.onnx": graph(X, outputs=outputs)}, targets=targets)
    assert manifest.members[0].output == output
    assert (manifest.task, manifest.targets, manifest.outputs, manifest.classes) == ("regression", targets, targets, [])
    assert manifest.default_strategy == "mean"


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        ([values("n")], ["price"], "[n, 1], the value of the target; got values tensor(float) [n]"),
        ([values("n", 3)], ["price"], "[n, 1], the value of the target; got values tensor(float) [n, 3]"),
        (
            [values("n", 1)],
            ["price", "weight"],
            "[n, 2], the values of the 2 targets; got values tensor(float) [n, 1]",
        ),
        (
            [values("n", 1), values("n", 1, name="deviation")],
            ["price"],
            "[n, 1], the value of the target; got values tensor(float) [n, 1], deviation tensor(float) [n, 1]; "
            "say which is meant: output = …",
        ),
        (
            [values("n", 1, type_=DOUBLE)],
            ["price"],
            "[n, 1], the value of the target; got values tensor(double) [n, 1]",
        ),
    ],
    ids=["flat", "columns", "targets", "two", "double"],
)
def test_values_that_cannot_be_told_are_refused(outputs: list[Tensor], targets: list[str], message: str) -> None:
    with pytest.raises(InvalidRepository) as caught:
        regress({"m1.onnx": graph(X, outputs=outputs)}, targets=targets)
    assert caught.value.message == (f"models/tiny/1/m1.onnx: expected just one output tensor(float) {message}")


def test_which_of_several_values_is_meant_may_be_said() -> None:
    files = {"m1.onnx": graph(X, outputs=[values("n", 1), values("n", 1, name="deviation")])}
    said = {"file": "m1.onnx", "output": "deviation", "weights": {"weighted": 2.0}}
    manifest = regress(files, said, targets=["price"], default_strategy="weighted")
    assert (manifest.members[0].output, manifest.default_strategy) == ("deviation", "weighted")


@pytest.mark.parametrize(
    "said",
    [
        {"final_estimator": {"file": "m1.onnx", "output": "values"}},
        {"cascade": tiny.cascade(["m1"], ["m2"], strategy="mean")},
    ],
    ids=["final estimator", "cascade"],
)
def test_a_regression_has_neither_a_final_estimator_nor_stages(said: dict[str, Any]) -> None:
    files = {name: graph(X, outputs=[values("n", 1)]) for name in ("m1.onnx", "m2.onnx")}
    with pytest.raises(InvalidRepository) as caught:
        regress(files, targets=["price"], **said)
    assert caught.value.message == f"{WHERE}: a regression has neither a final_estimator nor a cascade"


# What cannot be told ------------------------------------------------------------------------------------------------


def of_outputs(*outputs: Tensor) -> dict[str, bytes]:
    return {"m1.onnx": graph(X, outputs=list(outputs))}


def scores(*shape: str | int, type_: int = FLOAT, name: str = "scores") -> Tensor:
    return (name, type_, list(shape))


@pytest.mark.parametrize(
    ("outputs", "classes", "got"),
    [
        ([LABEL], 3, "label tensor(int64) [n]"),
        ([scores("n", 4)], 3, "scores tensor(float) [n, 4]"),
        ([scores(1, 3)], 3, "scores tensor(float) [1, 3]"),
        (
            [scores("n", 3), scores("n", 3, name="logits")],
            3,
            "scores tensor(float) [n, 3], logits tensor(float) [n, 3]; say which is meant: output = …",
        ),
        (
            [LABEL, scores("n", 3, type_=DOUBLE)],
            3,
            "label tensor(int64) [n], scores tensor(double) [n, 3]; convert the model from rows of float32",
        ),
        (
            [scores("n", 1)],
            2,
            "scores tensor(float) [n, 1]; one probability a row is not enough: let the graph answer both, 1 - p and p",
        ),
        (
            [LABEL, scores("n")],
            2,
            "label tensor(int64) [n], scores tensor(float) [n]; one probability a row is not enough: "
            "let the graph answer both, 1 - p and p",
        ),
        ([scores("n", 1)], 3, "scores tensor(float) [n, 1]"),
    ],
    ids=["label", "classes", "batch", "two", "double", "binary column", "binary", "one of three"],
)
def test_an_output_that_cannot_be_told_is_refused_with_advice(outputs: list[Tensor], classes: int, got: str) -> None:
    assert refusal(of_outputs(*outputs), classes=[f"c{k}" for k in range(classes)]) == (
        f"models/tiny/1/m1.onnx: expected just one output tensor(float) [n, {classes}], the probabilities of the "
        f"{classes} classes; got {got}"
    )


def test_which_of_several_outputs_is_meant_may_be_said() -> None:
    files = of_outputs(scores("n", 3), scores("n", 3, name="logits"))
    assert complete(files, {"file": "m1.onnx", "output": "scores"}).members[0].output == "scores"


def test_an_output_that_is_said_is_refused_with_the_same_advice() -> None:
    said = {"file": "m1.onnx", "output": "scores"}
    message = refusal(of_outputs(LABEL, scores("n", 1)), said, classes=["no", "yes"])
    assert message.endswith(
        "got scores tensor(float) [n, 1]; one probability a row is not enough: let the graph answer both, 1 - p and p"
    )


SAY = "so say them, [[inputs]] each with name and shape: "


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            [("X", INT64, ["n", 4])],
            "m1.onnx: input X tensor(int64) [n, 4]: expected tensor(float) or tensor(string); "
            "convert the model from rows of float32 and text",
        ),
        ([("X", DOUBLE, ["n", 4])], "m1.onnx: input X tensor(double) [n, 4]: expected tensor(float) or tensor(string)"),
        (
            [("X", FLOAT, [1, 4])],
            "m1.onnx: input X tensor(float) [1, 4]: expected the shape [n, …]: "
            "convert the model with a free batch dimension",
        ),
        ([("X", FLOAT, ["n"])], "m1.onnx: input X tensor(float) [n]: expected the shape [n, …]"),
        (
            [("X", FLOAT, ["n", "height", "width", 3])],
            "m1.onnx: input X tensor(float) [n, n, n, 3]: leaves sizes open, so say them: [[inputs]] with",
        ),
        ([("X", STRING, ["n", 4])], "m1.onnx: input X tensor(string) [n, 4]: text has shape [1]"),
        ([("X", FLOAT, ["n", 0])], "m1.onnx: input X tensor(float) [n, 0]: Input should be greater than or equal to 1"),
        ([("a/b", FLOAT, ["n", 4])], "m1.onnx: input a/b tensor(float) [n, 4]: String should match pattern"),
        (
            [("weights", FLOAT, ["n", 4])],
            "m1.onnx: input weights tensor(float) [n, 4]: expected a name other than answers, member_probabilities, "
            "members, probabilities, stacked, weights; a graph of one input takes any: say [[inputs]] with name "
            "and shape",
        ),
    ],
    ids=["whole", "double", "fixed batch", "vector", "open", "text", "empty", "slash", "reserved"],
)
def test_an_input_that_cannot_be_served_is_refused_with_advice(inputs: list[Tensor], message: str) -> None:
    assert refusal({"m1.onnx": graph(*inputs)}).startswith(f"models/tiny/1/{message}")


def test_sizes_and_names_that_are_said_need_not_be_told() -> None:
    files = {"m1.onnx": graph(("a/b", FLOAT, ["n", "features"]))}
    assert complete(files, inputs=[{"name": "X", "shape": [4]}]).inputs[0].shape == [4]


@pytest.mark.parametrize(
    ("others", "got"),
    [
        ([("X", FLOAT, ["n", 5])], "a.onnx reads X tensor(float) [n, 4]; b.onnx reads X tensor(float) [n, 5]"),
        ([("X", STRING, ["n", 4])], "b.onnx reads X tensor(string) [n, 4]"),
        ([X, ("Y", FLOAT, ["n", 4])], "b.onnx reads X tensor(float) [n, 4], Y tensor(float) [n, 4]"),
    ],
    ids=["shape", "type", "number"],
)
def test_graphs_that_do_not_agree_on_their_inputs_are_refused(others: list[Tensor], got: str) -> None:
    message = refusal({"a.onnx": graph(X), "b.onnx": graph(*others)})
    assert message.startswith(f"{WHERE}: the graphs read different inputs, {SAY}")
    assert message.endswith(got)


def test_a_file_whose_name_cannot_be_a_members_wants_one() -> None:
    files = {"my.forest.onnx": graph(X)}
    assert refusal(files).startswith(
        "models/tiny/1/my.forest.onnx: 'my.forest' cannot be a member's name, so say one: "
    )
    assert complete(files, {"file": "my.forest.onnx", "name": "forest"}).members[0].name == "forest"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["a", "a", "b"]}, "classes: 'a' is named more than once"),
        ({"members": [{"file": "m1.onnx"}] * 2}, "members: 'm1' is named more than once"),
        (
            {"cascade": tiny.cascade(["m1"], ["m2"])},
            "cascade: expected members of the ensemble, m1; got 'm2'",
        ),
        ({"cascade": tiny.cascade(["m1"], ["m1"])}, "cascade: member 'm1' is in more than one stage"),
        ({"inputs": [{"name": "X", "shape": [4]}] * 2}, "inputs: 'X' is named more than once"),
    ],
)
def test_what_is_complete_must_be_consistent(changes: dict[str, Any], message: str) -> None:
    assert refusal({"m1.onnx": graph(X)}, **changes) == f"{WHERE}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "members: Field required"),
        ("members = [{file = 'a'}]", "classes: Field required: a classification has classes"),
        ("classes = []\nmembers = [{file = 'a'}]", "classes: Field required: a classification has classes"),
        ("classes = ['a']\nmembers = [{file = 'a'}]", "classes: List should have at least 2 items, not 1, got ['a']"),
        ("task = 'regression'\nmembers = [{file = 'a'}]", "targets: Field required: a regression has targets"),
        (
            "task = 'regression'\nclasses = ['a', 'b']\ntargets = ['c']\nmembers = [{file = 'a'}]",
            "classes: a regression has none, but targets; got 2",
        ),
        (
            "classes = ['a', 'b']\ntargets = ['c']\nmembers = [{file = 'a'}]",
            "targets: a classification has none, but classes; got 1",
        ),
        ("classes = ['a', 'b']\nmembers = []", "members: List should have at least 1 item"),
        ("classes = 10\nmembers = [{file = 'a'}]", "classes: Input should be a valid list, got 10"),
        ("classes = ['a', 'b']\nmembers = [{name = 'a'}]", "members[0].file: Field required"),
        ("classes = ['a', 'b']\nmembers = [{file = '../a.onnx'}]", "members[0].file: String should match pattern"),
        (
            "classes = ['a', 'b']\nmembers = [{file = 'a', path = 'b'}]",
            "members[0].path: Extra inputs",
        ),
        ("classes = ['a', 'b']\ninputs = []\nmembers = [{file = 'a'}]", "inputs: List should have at least 1 item"),
    ],
)
def test_a_fault_is_told_by_field(text: str, message: str) -> None:
    with pytest.raises(InvalidRepository) as caught:
        parse_draft(text.encode(), where=WHERE)
    assert caught.value.message.startswith(f"{WHERE}: {message}")


# Real converters ----------------------------------------------------------------------------------------------------


@cache
def iris() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return x.astype(np.float32), y


@cache
def fitted() -> dict[str, Any]:
    """The models of the example in the documentation."""
    from sklearn.ensemble import RandomForestClassifier
    from xgboost import XGBClassifier

    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(*iris())
    return {"forest": forest, "boosted": XGBClassifier(n_estimators=3, max_depth=3, n_jobs=1).fit(*iris())}


def block(language: str) -> str:
    """The first block of code in this language in the documentation."""
    found = re.search(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


@cache
def converted() -> dict[str, bytes]:
    """The documentation's code, run."""
    names: dict[str, Any] = {**fitted(), "rows": iris()[0]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converters, about one another
        exec(block("python"), names)
    return {name: names[f"{name}_onnx"].SerializeToString() for name in fitted()}


def write(root: Path, text: str, files: Mapping[str, bytes]) -> Path:
    folder = root / "iris" / "1"
    folder.mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text(text)
    for name, data in files.items():
        (folder / f"{name}.onnx").write_bytes(data)
    return folder


def test_the_example_of_the_documentation_serves(tmp_path: Path) -> None:
    text = block("toml")
    assert len(text.splitlines()) <= 10
    write(tmp_path, text, converted())
    x, _ = iris()
    with Client(create_app(Settings(models=tmp_path, default="iris"))) as client:
        answer = client.post("/predict?detail=members", json={"instances": x[::30].tolist()}).json()
    assert (answer["strategy"], answer["classes"]) == ("vote", ["setosa", "versicolor", "virginica"])
    for name, model in fitted().items():
        answered = [prediction["members"][name]["probabilities"] for prediction in answer["predictions"]]
        assert_allclose(answered, model.predict_proba(x[::30]), atol=1e-5)


def test_a_pipeline_over_columns_serves(tmp_path: Path) -> None:
    """As skl2onnx converts what was fitted on a data frame: an input a column."""
    import pandas as pd
    from skl2onnx import to_onnx
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    table = pd.DataFrame({"age": np.arange(20, 50, dtype=np.float32), "job": ["cook", "nurse", "pilot"] * 10})
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["job"]), remainder="passthrough")
    pipeline = make_pipeline(encoder, LogisticRegression()).fit(table, [0, 1] * 15)
    model = to_onnx(pipeline, table[:1], options={"zipmap": False})
    folder = write(
        tmp_path,
        "classes = ['no', 'yes']\nmembers = [{file = 'pipeline.onnx'}]",
        {"pipeline": model.SerializeToString()},
    )
    ensemble = load_version(folder)
    assert [(spec.name, spec.datatype) for spec in ensemble.manifest.inputs] == [("age", "FP32"), ("job", "BYTES")]


@pytest.mark.parametrize(
    ("element", "options", "message"),
    [
        (
            np.float32,
            {},
            r"output_probability seq\(map\(int64,tensor\(float\)\)\) \[\]; convert the model with zip",
        ),
        (np.float64, {"zipmap": False}, r"input X tensor\(double\) \[n, 4\]: .*convert the model from rows of float32"),
    ],
    ids=["ZipMap", "double"],
)
def test_what_converters_write_unasked_is_refused_with_advice(
    element: type, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    from skl2onnx import to_onnx

    model = to_onnx(fitted()["forest"], iris()[0][:1].astype(element), options=options or None)
    folder = write(
        tmp_path,
        "classes = ['a', 'b', 'c']\nmembers = [{file = 'forest.onnx'}]",
        {"forest": model.SerializeToString()},
    )
    with pytest.raises(InvalidRepository, match=message):
        load_version(folder)


@pytest.mark.parametrize("n_targets", [1, 2])
def test_regressors_as_converters_write_them_serve(n_targets: int, tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import Ridge

    x, _ = iris()
    y = x[:, :n_targets]
    # skl2onnx says of a forest of several targets that it has one.
    other = RandomForestRegressor(n_estimators=5, max_depth=4, random_state=0) if n_targets == 1 else Ridge(alpha=9)
    models = [Ridge().fit(x[:, 2:], y), other.fit(x[:, 2:], y.squeeze())]
    files = {f"m{k + 1}": to_onnx(model, x[:1, 2:]).SerializeToString() for k, model in enumerate(models)}
    targets = [f"t{k}" for k in range(n_targets)]
    text = f"task = 'regression'\ntargets = {targets}\nmembers = [{{file = 'm1.onnx'}}, {{file = 'm2.onnx'}}]"
    ensemble = load_version(write(tmp_path, text, files))
    answered = ensemble.run(x[::10, 2:].copy())
    for model, values_of in zip(models, answered, strict=True):
        assert_allclose(values_of, model.predict(x[::10, 2:]).reshape(-1, n_targets), rtol=1e-4)
