"""A predict request from bytes to bytes: what the FastAPI route and the fast lane have in common.

They differ in how bytes come and go, and in nothing else. In this order: `admit`, the body is read, `predict`.
"""

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import lru_cache
from time import perf_counter
from typing import Protocol

from starlette.datastructures import QueryParams

from server import telemetry
from server.codec.media import Media
from server.codec.options import NO_OPTIONS, RequestOptions, for_engine, join, parse_deadline, parse_options
from server.engine import Engine
from server.plan import Options
from server.rest import answer
from server.rest.body import check_length, decode, media_of
from server.rest.reply import Headers, Reply, values_of
from server.rest.state import State, engine_of

SAYING = frozenset({b"content-type", b"content-encoding", b"accept", b"x-request-deadline-ms"})
"""Headers that say how a body is to be read, and answered."""


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class Asked:
    """A predict request but for its body."""

    headers: Headers
    query: bytes = b""
    name: str | None = None
    version: int | None = None


class Exchange(Protocol):
    """From a request to its answer. `began`, of the loop's clock, is when it came. Raises CommitteeError."""

    async def __call__(
        self, asked: Asked, body: bytes, engine: Engine, decoding: Executor, *, began: float
    ) -> Reply: ...


def admit(state: State, headers: Headers) -> Engine:
    """Who is to answer, to who may ask.

    What is raised here is answered unread: Unauthorized, Forbidden, NotReady, InvalidInput, TooLarge.
    """
    state.access.check(headers, "predict")
    engine = engine_of(state)
    check_length(headers)
    return engine


async def predict(asked: Asked, body: bytes, engine: Engine, decoding: Executor, *, began: float) -> Reply:
    """The answer; `began`, of the loop's clock, is when the request came. Raises CommitteeError."""
    said = tuple([header for header in asked.headers if header[0] in SAYING])
    terms = _read_terms(said, asked.query)
    ensemble = engine.ensemble(asked.name, asked.version)
    if terms.form is None:
        return answer.not_acceptable()
    clock = perf_counter()
    content = await decode(decoding, body, terms.media, ensemble.manifest)
    telemetry.observe_part("decode", perf_counter() - clock)
    options, wanted = terms.options, terms.wanted
    if content.options is not NO_OPTIONS:
        options, wanted = _agree(terms.queried, content.options, terms.form, terms.at_most)
    prediction = await engine.infer(ensemble, content.rows, wanted, began=began)
    clock = perf_counter()
    reply = answer.encode(prediction, terms.form, id=content.id, detail=options.detail)
    telemetry.observe_part("encode", perf_counter() - clock)
    return reply


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a request says beside its body."""

    media: Media
    form: str | None
    """Of the answer; None if none is acceptable."""
    queried: RequestOptions
    at_most: float | None
    """The deadline of its headers, in milliseconds."""
    options: RequestOptions
    """Of a request whose body says nothing itself."""
    wanted: Options
    """The same, for the engine."""


@lru_cache(maxsize=256)
def _read_terms(said: Headers, query: bytes) -> _Terms:
    """Remembered: clients say the same over and over. Raises InvalidInput, UnsupportedMediaType."""
    media = media_of(said)
    form = answer.choose_form(values_of(said, b"accept"))
    queried = parse_query(query) or NO_OPTIONS
    at_most = parse_deadline(values_of(said, b"x-request-deadline-ms"))
    options, wanted = _agree(queried, NO_OPTIONS, form, at_most)
    return _Terms(media, form, queried, at_most, options, wanted)


def _agree(
    queried: RequestOptions, written: RequestOptions, form: str | None, at_most: float | None
) -> tuple[RequestOptions, Options]:
    """What query, body and headers say together, also for the engine. Raises InvalidInput."""
    options = join(queried, written)
    if form is not None:
        answer.check_options(form, options)
    if at_most is not None:
        options = replace(options, deadline_ms=min(at_most, options.deadline_ms or at_most))
    return options, for_engine(options)


def parse_query(query: bytes) -> RequestOptions | None:
    """The options that it holds; None if it is empty. Raises InvalidInput."""
    return parse_options(QueryParams(query).multi_items(), where="query") if query else None
