"""Damaged ONNX files, each loaded in a process of its own that has ONNX Runtime loaded already.

The first byte of an input chooses the version that the file belongs to: one that is made by hand, or one with recorded
answers, or the shipped ensemble `fashion` 1. Its manifest has the hash of the damaged file, as that of someone would
who may write into the repository: it is the graph that has to be found out.
"""

import hashlib
import multiprocessing
import re
import tempfile
from collections.abc import Sequence
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import onnx
from google.protobuf.message import DecodeError

from server.confine import confine
from server.errors import InvalidRepository
from server.manifest import MANIFEST_FILE
from tests import faulty, tiny
from tests.fuzz import messages
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import Target

SECONDS = 20
MEMORY = 2 << 30
PRELOADED = ["onnxruntime", "numpy", "server.repository", "server.confine", "tests.fuzz.graphs"]
FASHION = Path("models/fashion/1")
LONGEST = 4 << 20
BY_HAND = f'classes = {tiny.CLASSES}\n[[members]]\nfile = "m1.onnx"\n'


class Graphs(Target):
    """A process may be ended by a signal: that is what it is for. What Python raises must be foreseen.

    What is accepted has answered: the version's recorded rows, as they were answered once, or made-up rows with
    distributions. Of rows besides, each answer is looked at when it is given.
    """

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
        root = Path(self._folder.name)
        by_hand = root / "by_hand" / "tiny" / "1"
        by_hand.mkdir(parents=True)
        (by_hand / MANIFEST_FILE).write_text(BY_HAND)
        recorded = tiny.write_ensemble(root / "recorded", n_members=1)
        shipped = root / "shipped" / "fashion" / "1"
        shipped.mkdir(parents=True)
        for path in FASHION.iterdir():
            (shipped / path.name).write_bytes(path.read_bytes())
        self._versions = [(by_hand, "m1.onnx"), (recorded, "m1.onnx"), (shipped, "ensemble.onnx")]
        self._manifests = [(folder / MANIFEST_FILE).read_text() for folder, _ in self._versions]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def seeds(self) -> list[bytes]:
        return [*self._made, *super().seeds()]

    @cached_property
    def _made(self) -> list[bytes]:
        members = [tiny.linear_member(weights) for weights in tiny.coefficients(2)]
        others = [tiny.regressor(tiny.slopes(1, 3)[0]), faulty.faulty_member(tiny.coefficients(1)[0])]
        shipped = (FASHION / "ensemble.onnx").read_bytes()
        return [b"\1" + members[0], *(b"\0" + data for data in (*members, *others)), b"\2" + shipped]

    def damage(self, random: Random, seeds: Sequence[bytes]) -> bytes:
        """Half of them as bytes, half by what the fields of their messages hold."""
        # The shipped one takes ten times as long as the others.
        seed = random.choice(seeds if random.random() < 0.2 else [seed for seed in seeds if len(seed) < 1 << 16])
        if random.random() < 0.5:
            others = [other for other in seeds if len(other) < 1 << 16]
            return seed[:1] + mutate(random, seed[1:], others=others, tokens=self.tokens, longest=LONGEST)
        try:
            model = onnx.load_model_from_string(seed[1:])
        except DecodeError:
            return seed
        for _ in range(random.randint(1, 4)):
            messages.change(random, model)
        try:
            return seed[:1] + bytes(model.SerializeToString())
        except ValueError:  # more than two gigabytes
            return seed

    def run(self, data: bytes) -> str:
        kind, graph = (data[0] if data else 0) % len(self._versions), data[1:]
        folder, file = self._versions[kind]
        (folder / file).write_bytes(graph)
        (folder / MANIFEST_FILE).write_text(_signed(self._manifests[kind], file, graph))
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=load, args=(str(folder), theirs), daemon=True)
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


def _signed(manifest: str, file: str, graph: bytes) -> str:
    """With the hash and the size of the file as it is now; a manifest that is made by hand has none."""
    entry = re.compile(rf'(name = "{re.escape(file)}"\nsha256 = )"[0-9a-f]{{64}}"(\nbytes = )\d+')
    return entry.sub(rf'\g<1>"{hashlib.sha256(graph).hexdigest()}"\g<2>{len(graph)}', manifest)


def load(folder: str, pipe: Connection) -> None:
    """In a process of its own."""
    from server.proof import made_rows
    from server.repository import load_version

    confine(MEMORY, SECONDS)
    try:
        ensemble = load_version(Path(folder))
        _, valid = ensemble.ask(made_rows(ensemble.manifest.inputs), range(len(ensemble.names)))
        said = ("loaded" if valid.all() else "loaded, and answers not all rows", "")
    except InvalidRepository as exc:
        said = ("refused" if "\n" not in str(exc) else "raised", str(exc))
    except Exception as exc:
        said = ("raised", repr(exc))
    pipe.send(said)
