"""A request in TensorFlow Serving's form from bytes to bytes, as `server.rest.exchange` has it for others."""

from functools import partial
from time import perf_counter

from server import telemetry
from server.codec.media import JSON
from server.codec.tf_serving import read_tf, write_tf
from server.oip.infer import ask
from server.oip.models import find_model
from server.oip.parameters import options_of
from server.rest.body import INLINE_JSON_BYTES, coding_of, read_in_turn
from server.rest.exchange import Admitted, Asked, deadline_of, hold, parse_query, unpack
from server.rest.reply import Reply, make_reply


async def tf_predict(asked: Asked, body: bytes, by: Admitted, *, began: float) -> Reply:
    """The answer; `began`, of the loop's clock, is when the request came. Raises CommitteeError.

    Options stand in the query. A body is JSON, whatever its headers say.
    """
    model = find_model(by.engine, asked.name or by.engine.default, asked.version)
    options = options_of(model, parse_query(asked.query))
    at_most = deadline_of(asked.headers)
    if (coding := coding_of(asked.headers)) is not None:
        body = await unpack(body, coding, by)
    manifest = model.ensemble.manifest
    max_rows = min(manifest.max_batch_size, by.bounds.max_rows)
    clock = perf_counter()
    read = partial(read_tf, body, manifest.inputs, max_rows=max_rows, bounds=by.bounds)
    content = await read_in_turn(by.decoding, read, apart=len(body) > INLINE_JSON_BYTES)
    telemetry.observe_part("decode", perf_counter() - clock, model.ensemble.labels)
    hold(by, body, content.rows)
    [name, *_] = model.outputs
    prediction = await ask(by.engine, model, content.rows, [name], options, at_most_ms=at_most, began=began)
    clock = perf_counter()
    answer = write_tf(model.outputs[name].make(prediction), content)
    telemetry.observe_part("encode", perf_counter() - clock, model.ensemble.labels)
    return make_reply(answer, JSON)
