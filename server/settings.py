"""Facts about the machine: where to listen, what to serve, with how many processes."""

import argparse
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.repository import Versions
from server.session import CPU, PROVIDERS

PROGRAM = "committee-server"
ENV_PREFIX = "COMMITTEE_"


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: its affinity, cut to the quota of its control group (v2, else v1)."""
    # Not every system lets a process be bound to cores; macOS does not.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(quota)))


def parse_versions(value: object) -> object:
    """`latest`, `all`, or numbers with commas between."""
    if not isinstance(value, str) or value in ("latest", "all"):
        return value
    numbers = value.split(",")
    if not all(number.isascii() and number.isdigit() and not number.startswith("0") for number in numbers):
        raise ValueError("expected latest, all, or numbers like 1,3")
    return frozenset(map(int, numbers))


def parse_providers(value: object) -> object:
    """Names with commas between."""
    names = tuple(value.lower().split(",")) if isinstance(value, str) else value
    if isinstance(names, tuple) and (not names or any(name not in PROVIDERS for name in names)):
        raise ValueError(f"expected some of {', '.join(PROVIDERS)}, with commas between")
    return names


def parse_port(value: object) -> object:
    """A number, or `off`."""
    return None if isinstance(value, str) and value.lower() == "off" else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """Each is an environment variable `COMMITTEE_<NAME>` and an option `--<name>` of the command."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    host: Annotated[str, Field(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 8000
    grpc_port: Annotated[
        int | None,
        BeforeValidator(parse_port),
        Field(ge=0, le=65535, description="port of gRPC; 0 takes a free one; off: there is none"),
    ] = 8001
    models: Annotated[Path, Field(description="folder of the model repository")] = Path("models")
    default: Annotated[str, Field(description="ensemble that /predict asks")] = "fashion"
    versions: Annotated[
        Versions,
        NoDecode,
        BeforeValidator(parse_versions),
        Field(description="versions of each ensemble to serve: latest, all, or numbers like 1,3"),
    ] = "latest"
    workers: Annotated[int, Field(ge=1, le=1024, description="processes")] = Field(default_factory=available_cores)
    providers: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(parse_providers),
        Field(description="what runs the graphs, the preferred first: some of " + ", ".join(PROVIDERS)),
    ] = CPU
    deadline: Annotated[
        float, Field(gt=0, le=3600, allow_inf_nan=False, description="seconds that a request may take at most")
    ] = 30.0
    breaker_failures: Annotated[
        int, Field(ge=0, description="failures in a row after which a member is left alone for a while; 0: never")
    ] = 5
    breaker_cooldown: Annotated[
        float, Field(gt=0, le=3600, allow_inf_nan=False, description="seconds until such a member is tried again")
    ] = 10.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        BeforeValidator(_lower),
        Field(description="least level that is logged"),
    ] = "info"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An option for each setting; one that is not given is not among the parsed."""
    parser.epilog = "An option wins over its environment variable."
    for name, field in Settings.model_fields.items():
        default = "one a core" if field.default_factory else field.default
        default = ",".join(default) if isinstance(default, tuple) else default
        parser.add_argument(
            _option(name),
            default=argparse.SUPPRESS,
            metavar=name.rpartition("_")[2].upper(),
            help=f"{field.description} (default: {default}; environment: {ENV_PREFIX}{name.upper()})",
        )


def read_settings(options: argparse.Namespace) -> Settings:
    """From the command's options, else the environment, else the defaults.

    Raises ValueError in one line: which option or variable, what was expected, what came.
    """
    given = vars(options)
    try:
        return Settings(**given)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = str(first["loc"][0])
        source = _option(name) if name in given else ENV_PREFIX + name.upper()
        raise ValueError(f"{source}: {first['msg'].removeprefix('Value error, ')}; got {first['input']!r}") from exc


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of CPU time; None where there is no limit."""
    readings: list[tuple[Any, ...]] = [
        ("cpu.max",),
        ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
    ]
    for names in readings:
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else None
        except (OSError, ValueError, ZeroDivisionError):
            continue  # not there, or "max"
    return None
