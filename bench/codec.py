"""What JSON costs: `python -m bench.codec`.

From a body to float32, by the server's codec, by what it did before, and by other libraries, which check less or
nothing; those that are not installed are left out (`pip install msgspec pysimdjson`). Then from a prediction to bytes.

Compared are only times of one run, taken in turn; medians.
"""

import functools
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jiter
import numpy as np
import orjson
from numpy.typing import NDArray
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

from server.codec.answers import encode_json
from server.codec.bodies import PredictBody, decode_json
from server.codec.numbers import check_domain
from server.codec.options import decode_options
from server.codec.tensors import decode_tensor
from server.manifest import InputSpec
from server.plan import Options, make_plan
from server.predicting import predict
from tests import tiny

IMAGE = InputSpec(name="image", shape=[28, 28, 1], low=0.0, high=255.0)
FOUR = InputSpec(name="X", shape=[4])
FORMS = ((784,), (28, 28), (28, 28, 1))
ROWS = (1, 32, 256)
BEFORE = "jiter, numpy"
"""The contender that the others are compared with: how the codec read such bodies until it had a cheaper way."""
ROUNDS = 15
ROUND_S = 0.006

Decoder = Callable[[bytes], NDArray[np.float32]]


def main() -> int:
    console = Console(width=140)
    console.print(decoding())
    console.print(encoding())
    return 0


# ---- From bytes -----------------------------------------------------------------------------------------------------


def decoding() -> Table:
    """A row of Markdown each: microseconds, and how many times as fast as BEFORE."""
    table = Table("body", *contenders(FORMS[0], IMAGE), title="JSON to float32: µs (times as fast)", box=MARKDOWN)
    cases = [
        (f"{n} x {list(form)}, {kind}", body_of(n, form, kind), form, IMAGE)
        for n in ROWS
        for form in (FORMS if n < ROWS[-1] else FORMS[:1])
        for kind in ("integers", "floats")
    ]
    for n, kind in ((1, "integers"), (1, "floats"), (32, "floats")):
        body = body_of(n, FORMS[0], kind)[:-1] + b', "strategy": "vote"}'
        cases.append((f"{n} x [784], {kind}, a strategy", body, FORMS[0], IMAGE))
    flowers = [[5.1, 3.5, 1.4, 0.2]]
    cases += [(f"{n} x [4], floats", json.dumps({"instances": flowers * n}).encode(), (4,), FOUR) for n in (1, 256)]
    for name, body, form, spec in track(cases, transient=True):
        took = medians({key: functools.partial(decode, body) for key, decode in contenders(form, spec).items()})
        table.add_row(name, *(f"{us:,.{us < 100:d}f} ({took[BEFORE] / us:.1f})" for us in took.values()))
    return table


def body_of(n: int, form: tuple[int, ...], kind: str) -> bytes:
    """Rows of pixels as integers, or as float32 scaled to 0 to 1, as clients send them."""
    rng = np.random.default_rng(0)
    rows: NDArray[Any] = rng.integers(0, 256, (n, *form)) if kind == "integers" else rng.random((n, *form), np.float32)
    return json.dumps({"instances": rows.tolist()}).encode()


def contenders(form: tuple[int, ...], spec: InputSpec) -> dict[str, Decoder]:
    """By name, for rows of this form; each answers `(n, size)`. Only the codec tells every bad body from a good one."""
    size = int(np.prod(form))

    def codec(body: bytes) -> NDArray[np.float32]:
        return decode_json(body, [spec], max_rows=256).rows.reshape(-1, size)

    def before(body: bytes) -> NDArray[np.float32]:
        fields = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
        if body.count(b'"') > 2:
            rows = decode_tensor(fields["instances"], spec, "instances[{}]".format)
        else:
            with np.errstate(over="ignore"):
                rows = np.array(fields["instances"], dtype=np.float32)
            if b"u" in body or b"l" in body or not np.isfinite(rows).all():
                raise ValueError
            check_domain(rows.reshape(len(rows), -1), spec, str)
        return PredictBody(rows=rows, options=decode_options(fields)).rows.reshape(-1, size)

    def plain(body: bytes) -> NDArray[np.float32]:
        return np.array(orjson.loads(body)["instances"], dtype=np.float32).reshape(-1, size)

    return {"codec": codec, BEFORE: before, "orjson, numpy": plain, **_others(form, size)}


def _others(form: tuple[int, ...], size: int) -> dict[str, Decoder]:
    found: dict[str, Decoder] = {}
    if msgspec := _imported("msgspec"):
        kind: Any = float
        for _ in range(len(form) + 1):
            kind = list[kind]
        decoder = msgspec.json.Decoder(msgspec.defstruct("Body", [("instances", kind)]))
        found["msgspec"] = lambda body: np.array(decoder.decode(body).instances, dtype=np.float32).reshape(-1, size)
    if simdjson := _imported("simdjson"):
        parser = simdjson.Parser()

        def buffered(body: bytes) -> NDArray[np.float32]:
            numbers = np.frombuffer(parser.parse(body)["instances"].as_buffer(of_type="d"), np.float64)
            return numbers.astype(np.float32).reshape(-1, size)

        found["simdjson"] = buffered

    def text(body: bytes) -> NDArray[np.float32]:
        numbers = body[body.index(b"[") : body.rindex(b"]")].translate(None, b"[]")
        return np.fromstring(numbers.decode(), np.float32, sep=",").reshape(-1, size)

    return {**found, "np.fromstring": text}


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# ---- To bytes -------------------------------------------------------------------------------------------------------


def encoding() -> Table:
    table = Table("rows of 10 classes", "bytes", "µs", title="A prediction to JSON", box=MARKDOWN)
    ensemble = tiny.answering(5, 10)
    plan = make_plan(ensemble, Options(strategy="average"))
    for n in ROWS:
        rows = np.random.default_rng(0).dirichlet(np.ones(10), n).astype(np.float32)
        prediction = predict(ensemble, rows, plan)
        took = medians({"encode": functools.partial(encode_json, prediction, id=None)})
        table.add_row(str(n), str(len(encode_json(prediction, id=None))), f"{took['encode']:.1f}")
    return table


def medians(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Microseconds a call, by name: of rounds in which each has its turn."""
    repeats: dict[str, int] = {}
    took: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        call()
        began = time.perf_counter()
        call()
        repeats[name] = max(1, int(ROUND_S / (time.perf_counter() - began)))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            took[name].append(1e6 * (time.perf_counter() - began) / repeats[name])
    return {name: statistics.median(times) for name, times in took.items()}


if __name__ == "__main__":
    sys.exit(main())
