"""What clients may send, how long they may take, and what all of them together may hold: one home for every limit."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Each is a setting of the same name, by which the error that it leads to calls it."""

    max_body_bytes: int = 16 << 20
    """Of a body as it comes, and of what a compressed one becomes."""
    max_rows: int = 4096
    """Of a request; an ensemble's own `max_batch_size` counts too."""
    max_json_depth: int = 16
    """Arrays and objects inside one another; no request needs more than 11."""
    max_json_memory: int = 144 << 20
    """What a body of JSON may take once it is parsed: a few bytes of it can stand for a hundred."""
    max_pixels: int = 12_500_000
    """Of a picture, each of which may take 12 bytes while it is decoded; of all the pictures of a request together,
    twice that."""
    max_url_bytes: int = 8 << 10
    max_header_bytes: int = 16 << 10
    """Of all headers of a request, as lines; of the trailers of a chunked body; of what frames chunks, beside as many
    bytes as they hold."""
    max_headers: int = 100
    header_timeout: float = 10.0
    """From the first byte of a request, or from when the connection is made, to the end of its headers."""
    body_timeout: float = 30.0
    """From the end of the headers to the end of the body. Time in which this server does not read does not count."""
    write_timeout: float = 30.0
    """Within which a client has to take an answer, or `WRITE_BYTES` of it."""
    max_connections: int = 1024
    """Of a worker; more are told so and closed."""
    max_inflight_bytes: int = 64 << 20
    """Of a worker: what bodies, their rows, and answers that nobody takes may hold together."""


WRITE_BYTES = 64 << 10
"""Of a long answer: what a client has to take within each `write_timeout`."""
