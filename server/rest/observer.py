"""The outermost layer of every request: its id, its metrics, and an answer to errors that nobody foresaw."""

import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import telemetry, tracing
from server.rest.errors import reply_to_unforeseen


class Observer:
    """ASGI middleware. It counts requests by the template of their route, so that clients cannot make labels."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        id_ = telemetry.choose_request_id(headers.get("x-request-id"))
        trace = tracing.begin(scope["method"], headers.get, began)
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered["X-Request-Id"] = id_
                if trace is not None:
                    answered[tracing.TRACEPARENT] = trace.traceparent
            await send(message)

        token = telemetry.request_id.set(id_)
        try:
            await self.app(scope, receive, send_with_id)
        except Exception as exc:
            if status is not None:
                raise  # half an answer is out: the connection has to break
            await reply_to_unforeseen(exc).response()(scope, receive, send_with_id)
        finally:
            telemetry.request_id.reset(token)
            telemetry.count_request(
                route=_template(scope),
                method=scope["method"],
                status=status or 499,  # 499: the client was gone before there was an answer
                seconds=time.perf_counter() - began,
            )
            if trace is not None:
                _end(trace, scope, status or 499)


def _end(trace: tracing.Trace, scope: Scope, status: int) -> None:
    method, route = scope["method"], _template(scope)
    trace.span.update_name(f"{method} {route}")
    tracing.end(trace, tracing.of_http(method, route, status), failed=status >= 499)


def _template(scope: Scope) -> str:
    """`/v1/ensembles/{name}`; one label for all the paths that no route has."""
    return getattr(scope.get("route"), "path", "unmatched")
