"""A predict request from bytes to bytes: what the FastAPI route and the fast lane have in common.

They differ in how bytes come and go, and in nothing else. In this order: `admit`, the body is read, the engine's
`check_load`, `predict`.
"""

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import lru_cache
from time import perf_counter
from typing import Any, Protocol, TypeVar

from fastapi import Request
from numpy.typing import NDArray
from starlette.datastructures import QueryParams

from server import telemetry
from server.bounds import Bounds
from server.budget import FREE, Share
from server.codec.media import Media
from server.codec.options import NO_OPTIONS, RequestOptions, for_engine, join, parse_deadline, parse_options
from server.engine import Engine
from server.plan import Options
from server.rest import answer
from server.rest.body import coding_of, decode, decompress, length_of, media_of, most_of, read_body
from server.rest.reply import Headers, Reply, values_of
from server.rest.state import State, engine_of

T = TypeVar("T")

DEADLINE = frozenset({b"x-request-deadline-ms", b"x-request-timeout-ms"})
"""Two ways to say the same."""
SAYING = frozenset({b"content-type", b"content-encoding", b"accept", *DEADLINE})
"""Headers that say how a body is to be read, and answered."""


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class Asked:
    """A predict request but for its body."""

    headers: Headers
    query: bytes = b""
    name: str | None = None
    version: int | None = None
    terms: Any = None
    """What headers and query say to the exchange that answers, once it has read them."""

    def read(self, terms_of: Callable[[Headers, bytes], T], saying: Collection[bytes]) -> T:
        """Its terms, of the headers of these names and the query: for who asks the same again."""
        self.terms = terms = terms_of(tuple([header for header in self.headers if header[0] in saying]), self.query)
        return terms


@dataclass(slots=True)  # not frozen: that takes three times as long to make
class Admitted:
    """Who is to answer, and within what."""

    engine: Engine
    decoding: Executor
    bounds: Bounds
    share: Share
    """What the request holds of the budget, for whoever admitted it to give back."""


class Exchange(Protocol):
    """From a request to its answer. `began`, of the loop's clock, is when it came. Raises CommitteeError."""

    async def __call__(self, asked: Asked, body: bytes, by: Admitted, *, began: float) -> Reply: ...


def admit(state: State, headers: Headers, length: int | None = None) -> Admitted:
    """Who is to answer, to who may ask; `length` is that of the body, in bytes, if the headers have been asked before.

    What is raised here is answered unread: Unauthorized, Forbidden, NotReady, InvalidInput, TooLarge, Overloaded.
    """
    state.access.check(headers, "predict")
    engine = engine_of(state)
    if length is None:
        length = length_of(headers, state.bounds)
    if length:
        state.budget.check(length)
    return Admitted(engine, state.decoding, state.bounds, Share(state.budget))


async def answer_to(exchange: Exchange, request: Request, name: str | None = None, version: int | None = None) -> Reply:
    """Of a request that FastAPI has read the head of: its body is read, and what it held is given back."""
    began = asyncio.get_running_loop().time()
    headers = request.headers.raw
    admitted = admit(request.app.state, headers)
    try:
        # Whatever is wrong besides: an answer before the body's end could be lost when the connection closes.
        body = await read_body(request, admitted.bounds, admitted.share)
        admitted.engine.check_load()
        asked = Asked(headers, request.scope["query_string"], name, version)
        return await exchange(asked, body, admitted, began=began)
    finally:
        admitted.share.give_back()


async def predict(asked: Asked, body: bytes, by: Admitted, *, began: float) -> Reply:
    """The answer; `began`, of the loop's clock, is when the request came. Raises CommitteeError."""
    terms: _Terms = asked.terms or asked.read(_read_terms, SAYING)
    ensemble = by.engine.ensemble(asked.name, asked.version)
    if terms.form is None:
        return answer.not_acceptable()
    clock = perf_counter()
    if terms.coding is not None:
        body = await unpack(body, terms.coding, by)
    content = await decode(by.decoding, body, terms.media, ensemble.manifest, by.bounds)
    hold(by, body, content.rows)
    telemetry.observe_part("decode", perf_counter() - clock, ensemble.labels)
    options, wanted = terms.options, terms.wanted
    if content.options is not NO_OPTIONS:
        options, wanted = _agree(terms.queried, content.options, terms.form, terms.at_most)
    prediction = await by.engine.infer(ensemble, content.rows, wanted, began=began)
    clock = perf_counter()
    reply = answer.encode(prediction, terms.form, id=content.id, detail=options.detail)
    telemetry.observe_part("encode", perf_counter() - clock, ensemble.labels)
    return reply


async def unpack(body: bytes, coding: str, by: Admitted) -> bytes:
    """The body as it was before it was compressed. Raises InvalidInput, TooLarge, Overloaded."""
    by.share.hold(most_of(body, by.bounds))  # until it is known how much it is
    whole = await decompress(by.decoding, body, coding, by.bounds)
    by.share.hold(len(whole))
    return whole


def hold(by: Admitted, body: bytes, *arrays: NDArray[Any]) -> None:
    """What a request holds now that it is decoded. Raises Overloaded."""
    if (size := sum(array.nbytes for array in arrays)) > FREE:
        by.share.hold(len(body) + size)


def deadline_of(headers: Headers) -> float | None:
    """In milliseconds, the nearest of them. Raises InvalidInput."""
    return parse_deadline([value.decode("latin-1") for name, value in headers if name in DEADLINE])


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a request says beside its body."""

    media: Media
    coding: str | None
    """By what the body is compressed."""
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
    media, coding = media_of(said), coding_of(said)
    form = answer.choose_form(values_of(said, b"accept"))
    queried = parse_query(query)
    at_most = deadline_of(said)
    options, wanted = _agree(queried, NO_OPTIONS, form, at_most)
    return _Terms(media, coding, form, queried, at_most, options, wanted)


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


@lru_cache(maxsize=256)
def parse_query(query: bytes) -> RequestOptions:
    """The options that it holds. Raises InvalidInput."""
    return parse_options(QueryParams(query).multi_items(), where="query") if query else NO_OPTIONS
