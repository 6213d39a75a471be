"""Every error that Committee raises on purpose.

    CommitteeError
    ├── InvalidInput            the request says something that cannot be served
    │   ├── TooLarge            … because it is over a stated limit
    │   └── UnsupportedMediaType
    ├── Unsupported             a part of a protocol that there is not here
    ├── Unauthorized            no key, or none that is known
    ├── Forbidden               a key that is not good for this
    ├── Conflict                something else of the kind is under way
    ├── NotFound                no such ensemble, version, member or route
    ├── Unavailable             nothing is wrong with the request: try again
    │   ├── Overloaded
    │   └── NotReady
    ├── DeadlineExceeded
    ├── MemberFailed            a model raised, or answered something that is no distribution
    │   └── QuorumMissed        … and too few others are left to answer
    ├── InternalError           a fault of ours: the detail is logged and never sent
    ├── InvalidRepository       the model repository cannot be served: stops the start
    └── InvalidKeys             the file of keys cannot be used: stops the start

The tree knows no HTTP and no gRPC: each transport has its own table from these classes to its statuses.
"""

from collections.abc import Mapping
from typing import ClassVar, TypeVar

T = TypeVar("T")


class CommitteeError(Exception):
    """Base of all. The message says what was expected, what came, and where."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(CommitteeError):
    code = "invalid_input"


class TooLarge(InvalidInput):
    code = "too_large"


class UnsupportedMediaType(InvalidInput):
    code = "unsupported_media_type"


class Unsupported(CommitteeError):
    code = "unsupported"


class Unauthorized(CommitteeError):
    code = "unauthorized"


class Forbidden(CommitteeError):
    code = "forbidden"


class Conflict(CommitteeError):
    code = "conflict"


class NotFound(CommitteeError):
    code = "not_found"


class Unavailable(CommitteeError):
    """The server cannot answer now; `retry_after` is in seconds."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(Unavailable):
    code = "overloaded"


class NotReady(Unavailable):
    code = "not_ready"


class DeadlineExceeded(CommitteeError):
    code = "deadline_exceeded"


class MemberFailed(CommitteeError):
    code = "member_failed"


class QuorumMissed(MemberFailed):
    """The message names members and reasons, and nothing of files."""

    code = "quorum_missed"


class InternalError(CommitteeError):
    code = "internal_error"


class InvalidRepository(CommitteeError):
    code = "invalid_repository"


class InvalidKeys(CommitteeError):
    code = "invalid_keys"


def nearest(table: Mapping[type[CommitteeError], T], error: type[CommitteeError]) -> T:
    """What a table that has CommitteeError says of the nearest of an error's classes."""
    return next(table[cls] for cls in error.__mro__ if cls in table)


def first_line(exc: BaseException) -> str:
    """What a library's exception says, as far as fits into a message of one line; its class if it says nothing."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
