import pytest

from server.framing import find_fault

HOST, LENGTH, CHUNKED = (b"host", b"x"), (b"content-length", b"1"), (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("headers", "version", "said"),
    [
        ([HOST, LENGTH], "1.1", None),
        ([HOST, CHUNKED], "1.1", None),
        ([], "1.0", None),
        ([], "1.1", "Host: expected one; got none"),
        ([HOST, HOST], "1.0", "Host: expected one; got several"),
        ([HOST, LENGTH, LENGTH], "1.1", "Content-Length: expected one; got several"),
        ([CHUNKED, HOST, LENGTH], "1.1", "Content-Length: expected none with Transfer-Encoding; got one"),
    ],
)
def test_faults_of_headers(headers: list[tuple[bytes, bytes]], version: str, said: str | None) -> None:
    """Also those that the parser finds before."""
    fault = find_fault(headers, version)
    assert (fault and fault.message) == said
    assert fault is None or (fault.status, fault.code) == (400, "invalid_input")
