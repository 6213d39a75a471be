"""What is said of an error, whatever the transport: never more than callers may know, of bounded length."""

import logging
from collections.abc import Mapping

from server.errors import CommitteeError, InternalError, InvalidKeys, InvalidRepository, MemberFailed, QuorumMissed

INTERNAL = "internal error; the server's log says more"
FAULTS: Mapping[type[CommitteeError], str] = {
    MemberFailed: "a member of the ensemble could not answer; the server's log says more",
    InternalError: INTERNAL,
    InvalidRepository: INTERNAL,
    InvalidKeys: INTERNAL,
}
"""What is said of faults of ours in place of their own message, which may tell of files; the log has it."""

MESSAGE_LIMIT = 1000
"""Characters; a message may quote what came, and what came may be long."""

logger = logging.getLogger(__name__)


def message_of(exc: CommitteeError) -> str:
    """What the caller is told. A fault of ours is logged, with its traceback.

    Overload and deadlines are no faults, and a line for each would come just when there is no time for it. Of a member
    that fails the log tells once.
    """
    kind = next((cls for cls in FAULTS if isinstance(exc, cls)), None)
    if type(exc) is not CommitteeError and (kind is None or isinstance(exc, QuorumMissed)):
        return shortened(exc.message)
    logger.error(exc.message, exc_info=exc)
    return INTERNAL if kind is None else FAULTS[kind]


def message_of_unforeseen(exc: BaseException) -> str:
    """The same of what nobody foresaw."""
    logger.error("unexpected %s", type(exc).__name__, exc_info=exc)
    return INTERNAL


def shortened(message: str) -> str:
    """Without lone surrogates, which UTF-8 cannot hold."""
    if len(message) > MESSAGE_LIMIT:
        message = message[:MESSAGE_LIMIT] + "…"
    return message.encode(errors="replace").decode()
