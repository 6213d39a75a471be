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
        ([HOST], "0.9", "expected HTTP/1.1; got something else"),
        ([HOST], "2.0", "expected HTTP/1.1; got something else"),
        ([HOST, HOST], "1.0", "Host: expected one; got several"),
        ([HOST, LENGTH, LENGTH], "1.1", "Content-Length: expected one; got several"),
        ([CHUNKED, HOST, LENGTH], "1.1", "Content-Length: expected none with Transfer-Encoding; got one"),
        ([HOST, CHUNKED], "1.0", "Transfer-Encoding: expected none with HTTP/1.0; got one"),
        ([HOST, CHUNKED, CHUNKED], "1.1", "Transfer-Encoding: expected chunked; got 'chunked, chunked'"),
        ([HOST, (CHUNKED[0], b"Chunked")], "1.1", None),
        ([HOST, (CHUNKED[0], b"gzip, chunked")], "1.1", "Transfer-Encoding: expected chunked; got 'gzip, chunked'"),
        ([HOST, (CHUNKED[0], b",chunked")], "1.1", "Transfer-Encoding: expected chunked; got ',chunked'"),
    ],
)
def test_faults_of_headers(headers: list[tuple[bytes, bytes]], version: str, said: str | None) -> None:
    """Also those that the parser finds before."""
    fault = find_fault(headers, version, b"/predict")
    assert (fault and fault.message) == said
    assert fault is None or (fault.status, fault.code) == (400, "invalid_input")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "a.example.com:", "x_y"]
)
def test_hosts(host: str) -> None:
    assert find_fault([(b"host", host.encode())], "1.1", b"/") is None


@pytest.mark.parametrize(
    "host",
    ["", " ", "a b", "user@x", "x/..", "x:y", "x:123456", "http://x", "a,b", "x?y", "[::1", "é", "x" * 301, "x#"],
)
def test_no_hosts(host: str) -> None:
    fault = find_fault([(b"host", host.encode())], "1.1", b"/")
    assert fault is not None
    assert fault.status == 400
    assert fault.message.startswith("Host: expected a name or an address; got '")
    assert len(fault.message) < 200


@pytest.mark.parametrize(
    ("url", "good"),
    [
        (b"/", True),
        (b"*", True),
        (b"http://a.example:80/predict", True),
        (b"HTTP://A.EXAMPLE:80?x", True),
        (b"http://b.example/predict", False),
        (b"http://a.example:80@b.example/", False),
        (b"http://a.example/", False),
    ],
)
def test_the_url_names_the_same_host(url: bytes, good: bool) -> None:
    fault = find_fault([(b"host", b"a.example:80")], "1.1", url)
    assert (fault and fault.message) == (None if good else "Host: expected that of the URL; got another")
