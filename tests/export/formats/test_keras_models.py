from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.adapt import Adaptation, member_of
from export.errors import ConversionFailed, InvalidModel, Mismatch, ParityError
from export.formats import Trust, load_model, source_of
from export.formats.keras_models import import_keras
from export.parity import check_parity
from tests.export.small_models import of_vectors, vectors

keras = import_keras()


def _network(*layers: Any, n_features: int = 4) -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((n_features,)), *layers])


def _dense(units: int = 3, activation: Any = "softmax") -> Any:
    return keras.layers.Dense(units, activation=activation)


NORMAL = keras.layers.Normalization(mean=[0.0, 1.0, 2.0, 3.0], variance=[1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "saved", "saved_by_tensorflow"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_every_form_of_file_answers_what_the_model_does(name: str, tmp_path: Path) -> None:
    import tensorflow as tf

    model, dataset = _network(NORMAL, _dense(8, "relu"), _dense()), of_vectors()
    path = tmp_path / name
    match name:
        case "saved":
            model.export(path, verbose=False)
        case "saved_by_tensorflow":
            tf.saved_model.save(model, str(path))
        case _:
            model.save(path)
    member = member_of(source_of(load_model(path, Trust())), "m", dataset)
    x = dataset.test.x
    np.testing.assert_allclose(member.predict_proba(x), model.predict(x, verbose=0), atol=1e-6)
    report = check_parity(member, member.to_onnx(), dataset)
    assert report.largest_difference < 1e-5
    assert report.rows["offset +1e+06"] == 100


@pytest.mark.parametrize("activation", ["gelu", "celu", "mish", "silu"])
def test_activations_that_tf2onnx_does_not_know_are_written_out(activation: str) -> None:
    member = member_of(source_of(_network(_dense(8, activation), _dense())), "m", of_vectors())
    assert check_parity(member, member.to_onnx(), of_vectors()).largest_difference < 1e-5


def test_an_operator_that_onnx_does_not_have_is_named() -> None:
    """tf2onnx logs an error and hands out a graph that nobody can load."""
    import tensorflow as tf

    @keras.saving.register_keras_serializable("tests")
    class Bessel(keras.layers.Layer):  # type: ignore[misc, name-defined]  # Keras is not typed
        def call(self, x: Any) -> Any:
            return tf.math.special.bessel_i0e(x)

    member = member_of(source_of(_network(Bessel(), _dense())), "m", of_vectors())
    with pytest.raises(ConversionFailed, match="member 'm': expected operators of ONNX, got BesselI0e"):
        member.to_onnx()


def test_two_columns_come_of_one_sigmoid() -> None:
    model, dataset = _network(_dense(1, "sigmoid")), of_vectors(classes=("no", "yes"))
    member = member_of(source_of(model), "m", dataset)
    p = model.predict(dataset.test.x, verbose=0)
    np.testing.assert_allclose(member.predict_proba(dataset.test.x), np.hstack([1 - p, p]), atol=1e-6)
    assert check_parity(member, member.to_onnx(), dataset).largest_difference < 1e-6


@pytest.mark.parametrize("units", [3, 1])
def test_logits_are_told_of_and_made_probabilities_when_said(units: int) -> None:
    dataset = of_vectors(classes=("a", "b", "c") if units == 3 else ("no", "yes"))
    source = source_of(_network(_dense(units, None)))
    with pytest.raises(Mismatch, match="say --logits m"):
        member_of(source, "m", dataset)
    member = member_of(source, "m", dataset, Adaptation(logits=True))
    assert member.logits is not None
    assert member.logits(dataset.test.x).shape == (100, len(dataset.classes))
    assert check_parity(member, member.to_onnx(), dataset).largest_difference < 1e-5


@pytest.mark.parametrize("last", [keras.layers.Softmax(), keras.layers.Activation("softmax")])
def test_a_softmax_may_be_a_layer_of_its_own(last: Any) -> None:
    member = member_of(source_of(_network(_dense(3, None), last)), "m", of_vectors())
    assert member.logits is not None
    x = of_vectors().test.x
    exponentials = np.exp(member.logits(x))
    np.testing.assert_allclose(member.predict_proba(x), exponentials / exponentials.sum(1, keepdims=True), atol=1e-6)
    assert check_parity(member, member.to_onnx(), of_vectors()).largest_difference < 1e-5


def test_without_known_logits_it_is_compared_far_out_with_itself_next_door(tmp_path: Path) -> None:
    _network(_dense(8, "relu"), _dense()).export(tmp_path / "saved", verbose=False)
    member = member_of(source_of(load_model(tmp_path / "saved", Trust())), "m", of_vectors())
    assert member.logits is None
    graph = member.to_onnx()
    check_parity(member, graph, of_vectors())
    (clipped,) = (node for node in graph.graph.node if node.op_type == "Relu")
    clipped.op_type = "LeakyRelu"  # of slope 0.01
    with pytest.raises(ParityError):
        check_parity(member, graph, of_vectors())


def test_integers_are_read_as_such() -> None:
    model = keras.Sequential([keras.Input((4,), dtype="int32"), keras.layers.Rescaling(0.1), _dense()])
    member = member_of(source_of(model), "m", of_vectors())
    x, _ = vectors()
    np.testing.assert_allclose(member.predict_proba(x), model.predict(x.astype(np.int32), verbose=0), atol=1e-6)
    assert check_parity(member, member.to_onnx(), of_vectors()).largest_difference < 1e-5


def test_models_of_several_inputs_or_of_no_shape_are_refused() -> None:
    one, two = keras.Input((2,)), keras.Input((2,))
    with pytest.raises(InvalidModel, match=r"got inputs \[\(None, 2\), \(None, 2\)\]"):
        source_of(keras.Model([one, two], _dense()(keras.layers.concatenate([one, two]))))
    with pytest.raises(InvalidModel, match=r"got inputs \[\] and outputs \[\]"):
        source_of(keras.Sequential([_dense()]))
    with pytest.raises(InvalidModel, match="expected a model that takes numbers, got one that takes string"):
        source_of(keras.Sequential([keras.Input((1,), dtype="string"), keras.layers.StringLookup(vocabulary=["a"])]))


@pytest.mark.parametrize(("name", "start"), [("m.keras", b"PK\x03\x04"), ("m.h5", b"\x89HDF\r\n\x1a\n")])
def test_a_file_that_is_no_model_is_refused(name: str, start: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(start + b"no model")
    with pytest.raises(InvalidModel, match=f"{name}: Keras cannot load it"):
        load_model(tmp_path / name, Trust())


def test_a_saved_model_without_the_usual_signature_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(InvalidModel, match=r"expected a signature 'serving_default', got \[\]"):
        load_model(tmp_path / "empty", Trust())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(InvalidModel, match="TensorFlow cannot load it"):
        load_model(tmp_path / "broken", Trust())


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    _network(keras.layers.Lambda(lambda x: x * 2), _dense()).save(tmp_path / "m.keras")
    with pytest.raises(InvalidModel, match="Keras cannot load it"):
        load_model(tmp_path / "m.keras", Trust())
