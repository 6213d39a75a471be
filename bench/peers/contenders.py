"""Who is measured: how each server is started, and in which form it takes its requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field

BESIDE = "json1@1 json1@8 json1@64 json1@256 json32@8 digits1@64 binary1@64 binary32@8"


@dataclass(frozen=True, slots=True)
class Contender:
    """A server. `{port}`, `{second_port}`, `{repository}` and `{name}` in its arguments are filled in at its start."""

    name: str
    title: str
    environment: str
    arguments: tuple[str, ...]
    """What follows `python`."""
    form: str
    """Of its requests: `committee`, `plain` or `oip`."""
    binary: bool = False
    """Whether it takes rows of float32 too."""
    variables: Mapping[str, str] = field(default_factory=dict)
    start_seconds: int = 60
    asked_only: bool = False
    """Left out unless it is named."""
    constant: bool = False
    """Its answer is not looked at."""
    package: str = ""
    """Whose version is said of it."""

    def takes(self, kind: str) -> bool:
        return kind in {"json", "digits"} or (kind == "binary" and self.binary) or self.form == "committee"


def _ours(workers: int, *, oip: bool = False) -> Contender:
    arguments = "-m server --host 127.0.0.1 --port {port} --models {repository} --default {name} --log-level warning"
    arguments += " --grpc-port off"
    return Contender(
        f"ours-{workers}w-oip" if oip else f"ours-{workers}w",
        f"**Committee, {_workers(workers)}{', by the Open Inference Protocol' if oip else ''}**",
        "serve",
        (*arguments.split(), "--workers", str(workers)),
        "oip:fashion" if oip else "committee",
        binary=True,
        package="committee",
    )


def _uvicorn(name: str, title: str, module: str, workers: int, *, constant: bool = False) -> Contender:
    arguments = f"-m uvicorn {module}:app --host 127.0.0.1 --port {{port}} --workers {workers} --loop uvloop"
    quiet = ("--http", "httptools", "--log-level", "warning", "--no-access-log")
    return Contender(
        name,
        f"{title}, {_workers(workers)}",
        "base",
        (*arguments.split(), *quiet),
        "plain",
        package="uvicorn",
        constant=constant,
    )


def _module(name: str) -> tuple[str, ...]:
    return ("-m", f"bench.peers.servers.{name}")


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
}
_BENTOML = ("-m", "bentoml", "serve", "bench.peers.servers.bentoml_service:Ensemble", "--host", "127.0.0.1")
_KSERVE = ("--http_port", "{port}", "--enable_grpc", "false", "--workers", "2")

ALL: Mapping[str, Contender] = {
    contender.name: contender
    for contender in (
        *map(_ours, (1, 2)),
        *(_uvicorn(f"naive-{n}w", "FastAPI by hand", "bench.peers.servers.naive", n) for n in (1, 2)),
        Contender(
            "triton", "Triton, Python backend, 2 instances", "triton", _module("triton"), "oip",
            binary=True, package="nvidia-pytriton",
        ),
        Contender(
            "kserve", "KServe SDK, 2 workers", "kserve", (*_module("kserve_sdk"), *_KSERVE), "oip",
            binary=True, package="kserve",
        ),
        Contender(
            "mlserver", "MLServer, adaptive batching", "mlserver", _module("mlserver_runtime"), "oip",
            package="mlserver",
        ),
        Contender(
            "ray", "Ray Serve, 2 replicas, HAProxy", "ray", _module("ray_serve"), "plain",
            binary=True, variables=_RAY, start_seconds=120, package="ray",
        ),
        Contender(
            "litserve", "LitServe, batching", "litserve", _module("litserve_api"), "plain",
            asked_only=True, package="litserve",
        ),
        Contender(
            "bentoml", "BentoML, 2 workers", "bentoml", (*_BENTOML, "--port", "{port}"), "plain",
            variables={"BENTOML_DO_NOT_TRACK": "True"}, asked_only=True, package="bentoml",
        ),
        Contender(
            "triton-ensemble", "Triton, a model a member", "triton", _module("triton"), "oip",
            binary=True, variables={"TRITON": "ensemble"}, asked_only=True, package="nvidia-pytriton",
        ),
        _uvicorn("bare", "uvicorn, a constant answer", "bench.peers.servers.bare", 2, constant=True),
        _ours(2, oip=True),
        _ours(3),
        _ours(4),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """Cells in which some contenders are measured in turn, over one workload."""

    name: str
    title: str
    workload: str
    contenders: tuple[str, ...]
    cells: str


MEMBERS = "members-"
"""What the names of the sections begin with that differ in the number of members."""
_MEMBERS = (1, 2, 5, 10, 20)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SIDES = tuple(name for name in ALL if name not in {"ours-3w", "ours-4w"})

SECTIONS: tuple[Section, ...] = (
    Section("beside", "Five cheap members", "fashion", _SIDES, BESIDE),
    Section(
        "heavy", "Five members of 1 ms a row each", "heavy", ("ours-2w", "naive-2w", "triton"),
        "json1@1 json1@8 json1@64 binary32@8",
    ),
    Section("strategies", "One strategy, and mixed ones", "fashion", ("ours-2w",), "json1@64 mixed1@64"),
    Section("rows", "By rows of a request", "fashion", ("ours-2w",), " ".join(f"binary{n}@8" for n in _ROWS)),
    Section(
        "workers", "By workers", "fashion", ("ours-1w", "ours-2w", "ours-3w", "ours-4w"), "json1@64 binary32@8"
    ),
    *(
        Section(f"{MEMBERS}{n:02d}", f"Members: {n}", f"members-{n}", ("ours-2w",), "json1@64 binary32@8")
        for n in _MEMBERS
    ),
)  # fmt: skip
QUICK = Section(
    "beside", "Five cheap members", "fashion", ("ours-2w", "naive-2w", "triton"),
    "json1@1 json1@64 json32@8 binary1@64 binary32@8",
)  # fmt: skip
