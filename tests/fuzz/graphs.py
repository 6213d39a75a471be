"""Damaged ONNX files, each loaded in a process of its own that has ONNX Runtime loaded already."""

import multiprocessing
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from server.confine import confine
from server.errors import InvalidRepository
from server.manifest import MANIFEST_FILE
from tests import tiny
from tests.fuzz.targets import Target

SECONDS = 20
MEMORY = 2 << 30
PRELOADED = ["onnxruntime", "numpy", "server.repository", "server.confine", "tests.fuzz.graphs"]
MANIFEST = f'classes = {tiny.CLASSES}\n[[members]]\nfile = "m1.onnx"\n'


class Graphs(Target):
    """A process may be ended by a signal: that is what it is for. What Python raises must be foreseen."""

    name = "graphs"
    tokens = (
        b"MatMul",
        b"Softmax",
        b"Loop",
        b"If",
        b"\x08\x01",
        b"\xff\xff\xff\xff\x0f",
        b"\x3a",
        b"ai.onnx.ml",
        b"W",
        b"X",
    )

    def __enter__(self) -> Self:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._folder = tempfile.TemporaryDirectory()
        self._version = Path(self._folder.name) / "tiny" / "1"
        self._version.mkdir(parents=True)
        (self._version / MANIFEST_FILE).write_text(MANIFEST)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def seeds(self) -> list[bytes]:
        made = [tiny.linear_member(weights) for weights in tiny.coefficients(2)]
        return [*made, tiny.regressor(tiny.slopes(1, 3)[0]), *super().seeds()]

    def run(self, data: bytes) -> str:
        (self._version / "m1.onnx").write_bytes(data)
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=load, args=(str(self._version), theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            said: Sequence[str] = ours.recv() if ours.poll(SECONDS) else ("takes too long", "")
            process.join(SECONDS if said[0] != "takes too long" else 0)
        except EOFError:
            process.join()
            return f"ended by {process.exitcode}"
        finally:
            process.kill()
            process.join()
            ours.close()
        word, message = said
        assert word != "raised", message
        return word


def load(folder: str, pipe: Connection) -> None:
    """In a process of its own."""
    from server.repository import load_version

    confine(MEMORY, SECONDS)
    try:
        load_version(Path(folder))
        said = ("loaded", "")
    except InvalidRepository as exc:
        said = ("refused" if "\n" not in str(exc) else "raised", str(exc))
    except Exception as exc:
        said = ("raised", repr(exc))
    pipe.send(said)
