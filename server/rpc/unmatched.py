"""Methods that there are not. gRPC would refuse them itself, and nobody would count them."""

from functools import partial
from typing import Any

import grpc

from server.codec.messages import named
from server.errors import Unsupported
from server.rpc.observer import observed

UNMATCHED = "unmatched"
"""What they are counted as, all of them: clients must not make labels."""


class Unmatched(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Has every method there could be, of every kind. It has to be the last of a server's handlers."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(partial(_refuse, handler_call_details.method))


async def _refuse(method: str, _: Any, context: Any) -> None:
    async def refuse(data: bytes, context: Any) -> bytes:
        raise Unsupported(f"expected a method that this server has, as reflection tells; got {named(method)}")

    await observed(UNMATCHED, refuse)(b"", context)
