"""A request of the Open Inference Protocol from bytes to bytes, as `server.rest.exchange` has it for others."""

from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

from server import telemetry
from server.codec.bodies import INLINE_BYTES
from server.codec.media import JSON, RAW
from server.codec.options import RequestOptions, join
from server.errors import InvalidInput
from server.oip.bodies import InferBody, read_infer, write_infer
from server.oip.infer import infer as ask
from server.oip.models import find_model
from server.rest.body import INLINE_JSON_BYTES, coding_of, read_in_turn
from server.rest.exchange import DEADLINE, Admitted, Asked, deadline_of, hold, parse_query, unpack
from server.rest.reply import Headers, Reply, make_reply, values_of

JSON_LENGTH = "Inference-Header-Content-Length"
SAYING = frozenset({JSON_LENGTH.lower().encode(), b"content-encoding", *DEADLINE})
"""Headers that say how a body is to be read, and when it is to be answered."""


async def infer(asked: Asked, body: bytes, by: Admitted, *, began: float) -> Reply:
    """The answer; `began`, of the loop's clock, is when the request came. Raises CommitteeError.

    What the body is, its headers need not say: clients of Triton send none, or any.
    """
    model = find_model(by.engine, asked.name or by.engine.default, asked.version)
    terms: _Terms = asked.terms or asked.read(_read_terms, SAYING)
    json_length = terms.json_length
    if terms.coding is not None:
        body = await unpack(body, terms.coding, by)

    def read() -> InferBody:
        return read_infer(body, model, json_length=json_length, bounds=by.bounds)

    clock = perf_counter()
    inline = INLINE_JSON_BYTES if json_length is None else INLINE_BYTES
    content = await read_in_turn(by.decoding, read, apart=len(body) > inline)
    telemetry.observe_part("decode", perf_counter() - clock, model.ensemble.labels)
    hold(by, body, *(tensor.values for tensor in content.tensors))
    envelope = content.envelope
    options = join(terms.queried, envelope.options)
    at_most = min((said for said in (terms.at_most, envelope.timeout) if said is not None), default=None)
    response = await ask(by.engine, content.request(model, options), at_most_ms=at_most, began=began)
    clock = perf_counter()
    answer, length = write_infer(response, envelope)
    telemetry.observe_part("encode", perf_counter() - clock, model.ensemble.labels)
    if length is None:
        return make_reply(answer, JSON)
    return make_reply(answer, RAW, headers={JSON_LENGTH: str(length)})


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a request says beside its body."""

    json_length: int | None
    """Of a body in which bytes follow JSON."""
    coding: str | None
    queried: RequestOptions
    at_most: float | None
    """The deadline of its headers, in milliseconds."""


@lru_cache(maxsize=256)
def _read_terms(said: Headers, query: bytes) -> _Terms:
    """Remembered: clients say the same over and over. Raises InvalidInput, UnsupportedMediaType."""
    return _Terms(_parse_length(said), coding_of(said), parse_query(query), deadline_of(said))


def _parse_length(headers: Headers) -> int | None:
    given = values_of(headers, JSON_LENGTH.lower().encode())
    if not given:
        return None
    if len(given) > 1 or not (given[0].isascii() and given[0].isdigit()) or len(given[0]) > 18:
        raise InvalidInput(f"{JSON_LENGTH}: expected a number of bytes, once; got {', '.join(given)[:64]!r}")
    return int(given[0])
