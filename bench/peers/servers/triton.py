"""Triton's own server, out of the wheel `nvidia-pytriton`, without the proxy: writes a repository, and becomes it.

The wheel ships the Python backend and no other. `TRITON=all`, the default, has one model that asks all members, two
instances of it; `TRITON=ensemble` has a model a member, one that averages, and Triton's `ensemble` platform over them.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytriton

from bench.peers.servers.members import member_files

MAX_BATCH, INSTANCES, CLASSES = 64, 2, 10
CODE = Path(__file__).with_name("triton_model.py")
WHEEL = Path(pytriton.__file__).parent / "tritonserver"


def main() -> None:
    """Ends by being Triton."""
    work = Path(os.environ["SCRATCH"])
    shutil.rmtree(work, ignore_errors=True)
    backends = work / "backends"
    shutil.copytree(WHEEL / "backends" / "python", backends / "python")
    stub = backends / "python" / "triton_python_backend_stub"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(WHEEL / "python_backend_stubs" / python / stub.name, stub)
    stub.chmod(0o755)
    repository = work / "repository"
    whole = os.environ.get("TRITON", "all") == "all"
    loaded = ["ensemble"] if whole else _write_parts(repository)
    if whole:
        _write(repository, "ensemble", ["image"], {})
    libraries = [
        os.environ.get("LD_LIBRARY_PATH", ""),
        str(Path(pytriton.__file__).parents[1] / "nvidia_pytriton.libs"),
    ]
    libraries.append(str(sysconfig.get_config_var("LIBDIR")))  # the stub is linked with libpython
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, libraries))}
    program = str(WHEEL / "bin" / "tritonserver")
    said = {
        "model-repository": str(repository),
        "backend-directory": str(backends),
        "http-address": "127.0.0.1",
        "http-port": os.environ["PORT"],
        "http-thread-count": "2",
        "allow-grpc": "false",
        "allow-metrics": "false",
        "model-control-mode": "explicit",
    }
    options = [f"--{name}={value}" for name, value in said.items()]
    os.execve(program, [program, *options, *(f"--load-model={name}" for name in loaded)], environment)


def _write_parts(repository: Path) -> list[str]:
    """A model a member, the one that averages, and the ensemble over them."""
    files = member_files()
    for k, path in enumerate(files):
        _write(repository, f"member_{k}", ["image"], {"member": str(path)})
    parts = [f"part_{k}" for k in range(len(files))]
    _write(repository, "mean", parts, {"parts": str(len(files))})
    steps = [
        f'{{ model_name: "member_{k}" model_version: -1 input_map {{ key: "image" value: "image" }} '
        f'output_map {{ key: "probabilities" value: "{part}" }} }}'
        for k, part in enumerate(parts)
    ]
    taken = " ".join(f'input_map {{ key: "{part}" value: "{part}" }}' for part in parts)
    given = 'output_map { key: "probabilities" value: "probabilities" }'
    steps.append(f'{{ model_name: "mean" model_version: -1 {taken} {given} }}')
    (repository / "ensemble" / "1").mkdir(parents=True)
    (repository / "ensemble" / "config.pbtxt").write_text(
        f'name: "ensemble"\nplatform: "ensemble"\nmax_batch_size: {MAX_BATCH}\n{_ports(["image"])}'
        f"ensemble_scheduling {{ step [ {', '.join(steps)} ] }}\n"
    )
    return ["ensemble"]


def _write(repository: Path, name: str, inputs: list[str], said: dict[str, str]) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    # The stub drops PYTHONPATH.
    paths = [path for path in sys.path if path.endswith("site-packages")] + [str(Path(__file__).parents[3])]
    (folder / "model.py").write_text(f"import sys\nsys.path[:0] = {paths!r}\n{CODE.read_text()}")
    said = {"members": os.environ["MEMBERS"], **said}
    parameters = "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in said.items()
    )
    (folder.parent / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: {MAX_BATCH}\n{_ports(inputs)}{parameters}\n'
        f"instance_group [{{ kind: KIND_CPU count: {INSTANCES} }}]\n"
        "dynamic_batching { max_queue_delay_microseconds: 0 }\n"
    )


def _ports(inputs: list[str]) -> str:
    sizes = [(name, 784 if name == "image" else CLASSES) for name in inputs]
    lines = [f'input [{{ name: "{name}" data_type: TYPE_FP32 dims: [{size}] }}]' for name, size in sizes]
    lines.append(f'output [{{ name: "probabilities" data_type: TYPE_FP32 dims: [{CLASSES}] }}]')
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
