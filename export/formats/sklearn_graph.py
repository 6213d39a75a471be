"""scikit-learn to ONNX by skl2onnx, with what it leaves out or rounds away put right.

skl2onnx computes in float32 what scikit-learn computes in float64. For scalers and projections that matters: at values
of 10,000 a float32 scaler is wrong in the digits that the next step, a tree or a sum, decides by. So those steps
are written in float64 here, and what comes out is rounded to float32 at the end, as a tree does by itself; boosters
that do not round get the float64 itself.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from export.errors import ConversionFailed
from export.formats.float64_trees import feed_float64, hist_gradient_boosting, register_boosters
from export.graph import ML_OPSET, OPSET, rename
from export.reading import Port
from server.errors import first_line


def sklearn_to_onnx(model: Any, ports: Sequence[Port]) -> ModelProto:
    """Raises ConversionFailed."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    register_boosters()
    kinds: dict[int, Any] = {TensorProto.FLOAT: FloatTensorType, TensorProto.STRING: StringTensorType}
    try:
        graph: ModelProto = skl2onnx.convert_sklearn(
            prepared(model),
            initial_types=[(port.name, kinds[port.element]([None, *port.shape])) for port in ports],
            options={"zipmap": False},
            # At its default target it imports ONNX's own opset twice.
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            custom_conversion_functions=_converters(),
        )
    except Exception as exc:  # it raises a dozen kinds, RuntimeError among them
        reason = first_line(exc)
        raise ConversionFailed(f"skl2onnx cannot convert it: {reason}") from exc
    # It spells `hours per week` with underscores; the order stays.
    names = {value.name: port.name for value, port in zip(graph.graph.input, ports, strict=True)}
    rename(graph.graph, lambda old: names.get(old, old))
    feed_float64(graph.graph)
    return graph


def estimators(model: Any) -> Iterator[Any]:
    """The model and every fitted part of it, each once."""
    seen: set[int] = set()
    stack = [model]
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, (list, tuple)):
            stack.extend(part)
        elif isinstance(part, dict):
            stack.extend(part.values())
        elif isinstance(part, np.ndarray) and part.dtype == object:
            stack.extend(part.ravel())
        elif hasattr(part, "get_params") or hasattr(part, "calibrators"):
            yield part
            stack.extend(vars(part).values())


def prepared(model: Any) -> Any:
    """A copy that says the same in the words that the converters know."""
    prepared_model = copy.deepcopy(model)
    for part in estimators(prepared_model):
        for fits, prepare in PREPARATIONS:
            if fits(part):
                prepare(part)
    return prepared_model


def _is(name: str, fitted: str | None = None) -> Callable[[Any], bool]:
    return lambda part: type(part).__name__ == name and (fitted is None or hasattr(part, fitted))


def _name_missing_text(encoder: Any) -> None:
    """A missing text is empty in our rows; the encoder learned it as NaN."""
    encoder.categories_ = [
        np.array(["" if value != value or value is None else value for value in categories], dtype=object)
        if categories.dtype == object
        else categories
        for categories in encoder.categories_
    ]


def _name_missing_filler(imputer: Any) -> None:
    if _fills_text(imputer):
        imputer.missing_values = ""


def _fills_text(imputer: Any) -> bool:
    return any(isinstance(value, str) for value in imputer.statistics_)


def _unname_booster(model: Any) -> None:
    booster = model.get_booster()
    booster.feature_names = booster.feature_types = None


def _unflatten(model: Any) -> None:
    """Says how `transform` answers, which nobody asks of a classifier; the converter knows no other way."""
    model.flatten_transform = False


PREPARATIONS: tuple[tuple[Callable[[Any], bool], Callable[[Any], None]], ...] = (
    (_is("OneHotEncoder", "categories_"), _name_missing_text),
    (_is("SimpleImputer", "statistics_"), _name_missing_filler),
    (_is("XGBClassifier", "n_classes_"), _unname_booster),
    (_is("VotingClassifier"), _unflatten),
)


# ---- Converters -----------------------------------------------------------------------------------------------------


def _converters() -> dict[type, Callable[..., None]]:
    from sklearn.decomposition import PCA
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    return {
        StandardScaler: _in_float64(_standardised),
        RobustScaler: _in_float64(_centred),
        MaxAbsScaler: _in_float64(lambda model, x, op: op("Div", x, model.scale_)),
        MinMaxScaler: _in_float64(_between),
        PCA: _in_float64(_projected),
        HistGradientBoostingClassifier: hist_gradient_boosting,
        SimpleImputer: _imputer,
    }


def _standardised(model: Any, x: Any, op: Callable[..., Any]) -> Any:
    x = op("Sub", x, model.mean_) if model.with_mean else x
    return op("Div", x, model.scale_) if model.with_std else x


def _centred(model: Any, x: Any, op: Callable[..., Any]) -> Any:
    x = op("Sub", x, model.center_) if model.with_centering else x
    return op("Div", x, model.scale_) if model.with_scaling else x


def _between(model: Any, x: Any, op: Callable[..., Any]) -> Any:
    x = op("Add", op("Mul", x, model.scale_), model.min_)
    if not model.clip:
        return x
    low, high = (np.array([bound], dtype=np.float64) for bound in model.feature_range)
    return op("Min", op("Max", x, low), high)


def _projected(model: Any, x: Any, op: Callable[..., Any]) -> Any:
    """In scikit-learn's own order: a difference in the last digit can be a leaf further."""
    x = op("Sub", op("MatMul", x, model.components_.T), model.mean_.reshape(1, -1) @ model.components_.T)
    if not model.whiten:
        return x
    scale = np.sqrt(model.explained_variance_)
    return op("Div", x, np.maximum(scale, np.finfo(scale.dtype).eps))


def _in_float64(write: Callable[[Any, Any, Callable[..., Any]], Any]) -> Callable[..., None]:
    """A converter for skl2onnx of what `write` writes: from float32, through float64, to float32."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        from skl2onnx.algebra import onnx_ops
        from skl2onnx.operator_converters.common import concatenate_variables

        version = container.target_opset

        def op(name: str, *inputs: Any) -> Any:
            # A model that was fitted to float32 has its numbers in float32.
            wide = [part.astype(np.float64) if isinstance(part, np.ndarray) else part for part in inputs]
            return getattr(onnx_ops, f"Onnx{name}")(*wide, op_version=version)

        inputs = operator.inputs
        joined = inputs[0].full_name if len(inputs) == 1 else concatenate_variables(scope, inputs, container)
        wide = onnx_ops.OnnxCast(joined, to=TensorProto.DOUBLE, op_version=version)
        written = write(operator.raw_operator, wide, op)
        names = [operator.outputs[0].full_name]
        onnx_ops.OnnxCast(written, to=TensorProto.FLOAT, op_version=version, output_names=names).add_to(
            scope, container
        )

    return convert


def _imputer(scope: Any, operator: Any, container: Any) -> None:
    """Numbers for NaN in float64; anything else is skl2onnx's own affair."""
    from skl2onnx.common._registration import get_converter

    model = operator.raw_operator
    fill = np.empty((1, 0)) if _fills_text(model) else model.statistics_.astype(np.float64).reshape(1, -1)
    if not fill.size or np.isnan(fill).any() or model.add_indicator or not _is_nan(model.missing_values):
        get_converter("SklearnSimpleImputer")(scope, operator, container)
        return
    _in_float64(lambda _, x, op: op("Where", op("IsNaN", x), fill, x))(scope, operator, container)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))
