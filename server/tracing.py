"""Traces by OpenTelemetry, where they are switched on: a span for each request and for the parts of its way.

A batch answers many requests: it is a trace of its own, with links to theirs, and theirs link to it. While traces are
off nothing of OpenTelemetry is imported here, and `current` is None.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter, time_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"


@dataclass(slots=True)
class _Tracing:
    provider: "TracerProvider"
    tracer: "Tracer"
    offset: int
    """Nanoseconds from `perf_counter` to 1970."""

    def at(self, clock: float) -> int:
        return self.offset + round(clock * 1e9)


@dataclass(slots=True)
class Trace:
    """A request's span, and what its children need of it."""

    span: "Span"
    context: "Context"

    @property
    def traceparent(self) -> str:
        """For the answer, as W3C Trace Context has it."""
        own = self.span.get_span_context()
        return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"


_tracing: _Tracing | None = None
_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def start() -> None:
    """Send traces by OTLP over HTTP to where the environment's `OTEL_…` say. In a worker: its thread bears no fork."""
    global _tracing
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    said = OTELResourceDetector().detect()
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "committee"}).merge(said))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracing = _Tracing(provider, provider.get_tracer("committee"), time_ns() - round(perf_counter() * 1e9))


def stop() -> None:
    """Send what has not been sent yet."""
    global _tracing
    if _tracing is not None:
        tracing, _tracing = _tracing, None
        tracing.provider.shutdown()


def begin(name: str, header: Callable[[str], str | None], clock: float) -> Trace | None:
    """The span of a request that came at this `clock` of `perf_counter`; the current task's. None: there are no traces.

    `header` finds one by its name; `traceparent` makes it part of the client's trace.
    """
    if _tracing is None:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {key: value for key in (TRACEPARENT, TRACESTATE) if (value := header(key)) is not None}
    caller = TraceContextTextMapPropagator().extract(carrier, Context())
    span = _tracing.tracer.start_span(name, caller, SpanKind.SERVER, start_time=_tracing.at(clock))
    trace = Trace(span, set_span_in_context(span, Context()))
    _current.set(trace)
    return trace


def end(trace: Trace, attributes: Mapping[str, str | int], *, failed: bool) -> None:
    """The request is answered."""
    from opentelemetry.trace import StatusCode

    _current.set(None)
    trace.span.set_attributes(attributes)
    if failed:
        trace.span.set_status(StatusCode.ERROR)
    trace.span.end()


def of_http(method: str, route: str, status: int) -> dict[str, str | int]:
    """What OpenTelemetry calls this."""
    return {"http.request.method": method, "http.route": route, "http.response.status_code": status}


def current() -> Trace | None:
    """Of the request that the current task answers; None where there are no traces."""
    return None if _tracing is None else _current.get()


def part(name: str, began: float, trace: Trace | None) -> None:
    """A part of a request's way, from `began`, of `perf_counter`, until now."""
    if trace is not None and _tracing is not None:
        span = _tracing.tracer.start_span(name, trace.context, start_time=_tracing.at(began))
        span.end(_tracing.at(perf_counter()))


def batch(traces: Sequence[Trace], began: float, attributes: Mapping[str, str | int | Sequence[str]]) -> None:
    """A batch for these requests that has ended now: in a trace of its own, and as `members` in each of theirs."""
    if _tracing is None or not traces:
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import Link

    started, ended, tracer = _tracing.at(began), _tracing.at(perf_counter()), _tracing.tracer
    links = [Link(trace.span.get_span_context()) for trace in traces]
    span = tracer.start_span("batch", Context(), attributes=attributes, links=links, start_time=started)
    span.end(ended)
    for trace in traces:
        of_batch = [Link(span.get_span_context())]
        own = tracer.start_span("members", trace.context, attributes=attributes, links=of_batch, start_time=started)
        own.end(ended)
