import pytest
from grpc import StatusCode

from server import errors
from server.errors import CommitteeError
from server.rpc.errors import STATUSES, status_of
from tests.server.rest.test_errors import subclasses


def test_the_table_covers_every_error() -> None:
    ours = [cls for cls in subclasses(CommitteeError) if cls.__module__ == errors.__name__]
    assert set(STATUSES) == {CommitteeError, *ours}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.TooLarge, StatusCode.INVALID_ARGUMENT),
        (errors.QuorumMissed, StatusCode.UNAVAILABLE),
        (errors.InternalError, StatusCode.INTERNAL),
    ],
)
def test_an_error_has_the_status_of_its_nearest_class(error: type[CommitteeError], status: StatusCode) -> None:
    special = type("Special", (error,), {})
    assert status_of(error) == status_of(special) == status
