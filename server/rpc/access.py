"""Who may call what: the same keys as over HTTP, in the metadata `authorization` or `x-api-key`."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from server.keys import Scope
from server.rpc.observer import Method

Headers = Sequence[tuple[bytes, bytes]]
CheckKey = Callable[[Headers, Scope], str | None]
"""The name of the key by which a call may; None if it needs none. Raises Unauthorized, Forbidden."""

logger = logging.getLogger(__name__)


def guarded(name: str, method: Method, scope: Scope, check: CheckKey) -> Method:
    """The method, for those who may; what an administrator asks for is logged."""

    async def call(data: bytes, context: Any) -> bytes:
        key = check(_headers(context), scope)
        if scope == "admin":
            logger.info("a call about the repository", extra={"method": name, "key": key})
        return await method(data, context)

    return call


def _headers(context: Any) -> Headers:
    pairs = context.invocation_metadata() or ()
    return [(name.encode(), value if isinstance(value, bytes) else value.encode("latin-1")) for name, value in pairs]
