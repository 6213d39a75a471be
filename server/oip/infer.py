"""One way to ask a model, whatever the transport: tensors in, tensors out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from server.codec.answers import write_weights
from server.codec.messages import listed, named
from server.codec.options import NO_OPTIONS, RequestOptions
from server.engine import Engine
from server.errors import InvalidInput
from server.oip.inputs import rows_of
from server.oip.models import Model
from server.oip.outputs import UNCERTAINTY, classify
from server.oip.parameters import CLASSIFICATION, Parameters, Scalar, Wanted, options_of
from server.oip.tensors import Tensor
from server.plan import Options
from server.prediction import Prediction
from server.rows import Rows


@dataclass(slots=True, kw_only=True)  # not frozen: that takes three times as long to make
class InferRequest:
    model: Model
    inputs: Sequence[Tensor]
    """One for each of the model's inputs, with its rows; those whose values may all be missing may be left out."""
    outputs: Sequence[Wanted] = ()
    """In the order in which they are to come back; none means all."""
    options: RequestOptions = NO_OPTIONS
    """As `parameters.parse_parameters` reads them."""
    id: str | None = None


@dataclass(slots=True, kw_only=True)  # not frozen: that takes three times as long to make
class InferResponse:
    model: Model
    outputs: Sequence[Tensor]
    parameters: Parameters
    """Of an ensemble: `strategy`, `members` with their weights, `degraded`, and, if there are any, who is `missing`."""
    id: str | None


async def infer(
    engine: Engine, request: InferRequest, *, at_most_ms: float | None = None, began: float | None = None
) -> InferResponse:
    """Answer a request; only the outputs that it asks for are computed.

    `at_most_ms` bounds its deadline; `began`, of the loop's clock, is when it came. Raises InvalidInput and its kinds
    for what cannot be served, before anything runs, and what `Engine.infer` does.
    """
    model = request.model
    wanted = check_outputs(model, request.outputs)
    options = options_of(model, request.options)
    rows = rows_of(model.ensemble.manifest, request.inputs)
    names = [output.name for output in wanted]
    prediction = await ask(engine, model, rows, names, options, at_most_ms=at_most_ms, began=began)
    tensors = [_tensor(model, output, prediction) for output in wanted]
    return InferResponse(model=model, outputs=tensors, parameters=facts_of(model, prediction), id=request.id)


async def ask(
    engine: Engine,
    model: Model,
    rows: Rows,
    names: Iterable[str],
    options: Options,
    *,
    at_most_ms: float | None = None,
    began: float | None = None,
) -> Prediction:
    """The prediction of which these outputs can be made."""
    if at_most_ms is not None:
        options = replace(options, deadline_ms=min(at_most_ms, options.deadline_ms or math.inf))
    if UNCERTAINTY in names:
        options = replace(options, uncertainty=True)
    return await engine.infer(model.ensemble, rows, options, began=began)


def check_outputs(model: Model, wanted: Sequence[Wanted]) -> Sequence[Wanted]:
    """The outputs that are asked for: these, or, of none, all. Raises InvalidInput."""
    known = model.outputs
    for output in wanted:
        if output.name not in known:
            raise InvalidInput(
                f"outputs: expected some of {listed(list(known), output.name)}; got {named(output.name)}"
            )
        if output.classes and output.name != (answer := next(iter(known))):
            raise InvalidInput(f"output {named(output.name)}: expected {CLASSIFICATION} of {answer!r} only")
    if len({output.name for output in wanted}) != len(wanted):
        raise InvalidInput("outputs: expected each once; got one twice")
    return wanted or [Wanted(name) for name in known]


def _tensor(model: Model, wanted: Wanted, prediction: Prediction) -> Tensor:
    tensor = model.outputs[wanted.name].tensor(wanted.name, prediction)
    return classify(tensor, model.ensemble.manifest.outputs, wanted.classes) if wanted.classes else tensor


def facts_of(model: Model, prediction: Prediction) -> dict[str, Scalar]:
    """What is said of an answer beside its tensors."""
    if model.member is not None:
        return {}
    facts: dict[str, Scalar] = {
        "strategy": prediction.strategy,
        "members": write_weights(prediction),
        "degraded": bool(prediction.missing),
    }
    if prediction.missing:
        facts["missing"] = ",".join(f"{name}:{reason}" for name, reason in prediction.missing.items())
    return facts
