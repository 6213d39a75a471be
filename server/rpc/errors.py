"""The table from errors to the statuses of gRPC."""

from collections.abc import Mapping

from grpc import StatusCode

from server.errors import (
    CommitteeError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InternalError,
    InvalidInput,
    InvalidKeys,
    InvalidRepository,
    MemberFailed,
    NotFound,
    NotReady,
    Overloaded,
    QuorumMissed,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unsupported,
    UnsupportedMediaType,
    nearest,
)

STATUSES: Mapping[type[CommitteeError], StatusCode] = {
    InvalidInput: StatusCode.INVALID_ARGUMENT,
    TooLarge: StatusCode.INVALID_ARGUMENT,
    UnsupportedMediaType: StatusCode.INVALID_ARGUMENT,
    Unauthorized: StatusCode.UNAUTHENTICATED,
    Forbidden: StatusCode.PERMISSION_DENIED,
    NotFound: StatusCode.NOT_FOUND,
    Conflict: StatusCode.ABORTED,
    Unsupported: StatusCode.UNIMPLEMENTED,
    Unavailable: StatusCode.UNAVAILABLE,
    Overloaded: StatusCode.UNAVAILABLE,
    NotReady: StatusCode.UNAVAILABLE,
    MemberFailed: StatusCode.UNAVAILABLE,
    QuorumMissed: StatusCode.UNAVAILABLE,
    DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    InternalError: StatusCode.INTERNAL,
    InvalidRepository: StatusCode.INTERNAL,
    InvalidKeys: StatusCode.INTERNAL,
    CommitteeError: StatusCode.INTERNAL,
}
"""An error has the status of the nearest of its classes that stands here.

RESOURCE_EXHAUSTED is what gRPC itself says: of a message that is too large, and of too many calls at once.
"""


def status_of(error: type[CommitteeError]) -> StatusCode:
    return nearest(STATUSES, error)
