"""A predict request from bytes to bytes: what the FastAPI route and the fast lane have in common.

They differ in how bytes come and go, and in nothing else. In this order: `admit`, the body is read, `predict`.
"""

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Protocol

from starlette.datastructures import QueryParams

from server.codec.options import RequestOptions, for_engine, join, parse_deadline, parse_options
from server.engine import Engine
from server.rest import answer
from server.rest.body import check_length, decode, media_of
from server.rest.reply import Headers, Reply, values_of
from server.rest.state import State, engine_of


@dataclass(frozen=True, slots=True)
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
    """Who is to answer. What is raised here is answered unread: NotReady, InvalidInput, TooLarge."""
    engine = engine_of(state)
    check_length(headers)
    return engine


async def predict(asked: Asked, body: bytes, engine: Engine, decoding: Executor, *, began: float) -> Reply:
    """The answer; `began`, of the loop's clock, is when the request came. Raises CommitteeError."""
    media = media_of(asked.headers)
    ensemble = engine.ensemble(asked.name, asked.version)
    form = answer.choose_form(values_of(asked.headers, b"accept"))
    if form is None:
        return answer.not_acceptable()
    queried = parse_query(asked.query)
    at_most = parse_deadline(values_of(asked.headers, b"x-request-deadline-ms"))
    content = await decode(decoding, body, media, ensemble.manifest)
    options = content.options if queried is None else join(queried, content.options)
    answer.check_options(form, options)
    if at_most is not None:
        options = replace(options, deadline_ms=min(at_most, options.deadline_ms or at_most))
    prediction = await engine.infer(ensemble, content.rows, for_engine(options), began=began)
    return answer.encode(prediction, form, id=content.id, detail=options.detail)


def parse_query(query: bytes) -> RequestOptions | None:
    """The options that it holds; None if it is empty. Raises InvalidInput."""
    return parse_options(QueryParams(query).multi_items(), where="query") if query else None
