"""A request in TensorFlow Serving's form from bytes to bytes, as `server.rest.exchange` has it for others."""

from concurrent.futures import Executor
from time import perf_counter

from server import telemetry
from server.codec.media import JSON
from server.codec.options import NO_OPTIONS, parse_deadline
from server.codec.tf_serving import read_tf, write_tf
from server.engine import Engine
from server.oip.infer import ask
from server.oip.models import find_model
from server.oip.parameters import options_of
from server.rest.exchange import Asked, parse_query
from server.rest.reply import Reply, make_reply, values_of


async def tf_predict(asked: Asked, body: bytes, engine: Engine, decoding: Executor, *, began: float) -> Reply:
    """The answer; `began`, of the loop's clock, is when the request came. Raises CommitteeError.

    Options stand in the query. A body is JSON, whatever its headers say.
    """
    model = find_model(engine, asked.name or engine.default, asked.version)
    options = options_of(model, parse_query(asked.query) or NO_OPTIONS)
    at_most = parse_deadline(values_of(asked.headers, b"x-request-deadline-ms"))
    manifest = model.ensemble.manifest
    clock = perf_counter()
    content = read_tf(body, manifest.inputs, max_rows=manifest.max_batch_size)
    telemetry.observe_part("decode", perf_counter() - clock)
    [name, *_] = model.outputs
    prediction = await ask(engine, model, content.rows, [name], options, at_most_ms=at_most, began=began)
    clock = perf_counter()
    answer = write_tf(model.outputs[name].make(prediction), content)
    telemetry.observe_part("encode", perf_counter() - clock)
    return make_reply(answer, JSON)
