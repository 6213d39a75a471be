"""Facts about the machine: where to listen, what to serve, with how many processes."""

import argparse
import importlib
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.bounds import Bounds
from server.repository import Versions, parse_versions
from server.session import CPU, PROVIDERS

PROGRAM = "committee-server"
ENV_PREFIX = "COMMITTEE_"
_BOUNDS = Bounds()
MOST_PORT = 65535
HOST_PATTERN = r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]"
"""Of a host that is trusted."""
COMPUTED = {"workers": "one a core", "threads": "the cores, shared among the workers"}
"""Defaults that depend on the machine, in words."""


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: its affinity, cut to the quota of its control group (v2, else v1)."""
    # Not every system lets a process be bound to cores; macOS does not.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(quota)))


def parse_providers(value: object) -> object:
    """Names with commas between."""
    names = tuple(value.lower().split(",")) if isinstance(value, str) else value
    if isinstance(names, tuple) and (not names or any(name not in PROVIDERS for name in names)):
        raise ValueError(f"expected some of {', '.join(PROVIDERS)}, with commas between")
    return names


def parse_hosts(value: object) -> object:
    """Names with commas between."""
    names = tuple(value.lower().split(",")) if isinstance(value, str) else value
    if isinstance(names, tuple) and not all(re.fullmatch(HOST_PATTERN, name) for name in names):
        raise ValueError("expected names, addresses or domains like *.example.org, with commas between, and no ports")
    return names


def parse_port(value: object) -> object:
    """A number, or `off`."""
    if isinstance(value, str) and value.lower() == "off":
        return None
    if isinstance(value, str) and not (re.fullmatch("[0-9]{1,5}", value) and int(value) <= MOST_PORT):
        raise ValueError(f"expected a number from 0 to {MOST_PORT}, or off")
    return value


def check_tracing(value: str) -> str:
    """Raises ValueError if it needs what is not installed."""
    if value == "otlp":
        try:
            importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        except ImportError as exc:
            raise ValueError("otlp: expected 'committee[otel]' to be installed") from exc
    return value


def _versions(value: object) -> object:
    return parse_versions(value) if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def cores_of_each(validated: dict[str, Any]) -> int:
    """Cores for each of the workers, at least one."""
    return max(1, available_cores() // int(validated["workers"]))


class Settings(BaseSettings):
    """Each is an environment variable `COMMITTEE_<NAME>` and an option `--<name>` of the command."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    host: Annotated[str, Field(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=MOST_PORT, description="port to listen on; 0 takes a free one")] = 8000
    grpc_port: Annotated[
        Annotated[int, Field(ge=0, le=MOST_PORT)] | None,
        BeforeValidator(parse_port),
        Field(description="port of gRPC; 0 takes a free one; off: there is none"),
    ] = 8001
    models: Annotated[Path, Field(description="folder of the model repository")] = Path("models")
    default: Annotated[str, Field(description="ensemble that /predict asks")] = "fashion"
    versions: Annotated[
        Versions,
        NoDecode,
        BeforeValidator(_versions),
        Field(description="versions of each ensemble to serve: latest, all, or numbers like 1,3"),
    ] = "latest"
    workers: Annotated[int, Field(ge=1, le=1024, description="processes")] = Field(default_factory=available_cores)
    threads: Annotated[int, Field(ge=1, le=1024, description="threads that run a graph, of a worker")] = Field(
        default_factory=cores_of_each
    )
    providers: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(parse_providers),
        Field(description="what runs the graphs, the preferred first: some of " + ", ".join(PROVIDERS)),
    ] = CPU
    tracing: Annotated[
        Literal["off", "otlp"],
        AfterValidator(check_tracing),
        Field(description="traces: otlp sends them, as the OTEL_… variables say"),
    ] = "off"
    deadline: Annotated[
        float, Field(gt=0, le=3600, allow_inf_nan=False, description="seconds that a request may take at most")
    ] = 30.0
    breaker_failures: Annotated[
        int, Field(ge=0, description="failures in a row after which a member is left alone for a while; 0: never")
    ] = 5
    breaker_cooldown: Annotated[
        float, Field(gt=0, le=3600, allow_inf_nan=False, description="seconds until such a member is tried again")
    ] = 10.0
    max_body_bytes: Annotated[
        int, Field(ge=1, le=1 << 30, description="bytes of a request's body, as it comes and decompressed")
    ] = _BOUNDS.max_body_bytes
    max_rows: Annotated[
        int, Field(ge=1, le=1 << 16, description="rows of a request; an ensemble's max_batch_size counts too")
    ] = _BOUNDS.max_rows
    max_json_depth: Annotated[
        int, Field(ge=4, le=128, description="how deep arrays and objects of JSON may be nested")
    ] = _BOUNDS.max_json_depth
    max_json_memory: Annotated[
        int, Field(ge=1 << 20, description="bytes that a body of JSON may take once it is parsed")
    ] = _BOUNDS.max_json_memory
    max_pixels: Annotated[
        int, Field(ge=1, le=1 << 28, description="pixels of a picture; of all of a request, twice that")
    ] = _BOUNDS.max_pixels
    max_url_bytes: Annotated[int, Field(ge=64, le=65_000, description="bytes of a URL")] = _BOUNDS.max_url_bytes
    max_header_bytes: Annotated[int, Field(ge=256, le=1 << 20, description="bytes of a request's headers together")] = (
        _BOUNDS.max_header_bytes
    )
    max_headers: Annotated[int, Field(ge=8, le=10_000, description="headers of a request")] = _BOUNDS.max_headers
    header_timeout: Annotated[
        float, Field(gt=0, le=3600, allow_inf_nan=False, description="seconds until a request's headers are there")
    ] = _BOUNDS.header_timeout
    body_timeout: Annotated[
        float, Field(gt=0, le=3600, allow_inf_nan=False, description="seconds from there until its body is")
    ] = _BOUNDS.body_timeout
    write_timeout: Annotated[
        float,
        Field(
            gt=0, le=3600, allow_inf_nan=False, description="seconds in which a client takes an answer, or part of it"
        ),
    ] = _BOUNDS.write_timeout
    keep_alive: Annotated[
        int,
        Field(ge=1, le=3600, description="seconds that an idle connection is kept: longer than a balancer keeps it"),
    ] = 75
    max_connections: Annotated[
        int, Field(ge=1, le=1 << 20, description="connections of a worker; others are told 503")
    ] = _BOUNDS.max_connections
    max_inflight_bytes: Annotated[
        int, Field(ge=1 << 16, description="bytes that the bodies in flight of a worker may hold; then 503")
    ] = _BOUNDS.max_inflight_bytes
    keys_file: Annotated[
        Path | None, Field(description="file of the API keys; without one everybody may predict, and nobody do more")
    ] = None
    trusted_hosts: Annotated[
        tuple[str, ...],
        NoDecode,
        BeforeValidator(parse_hosts),
        Field(description="hosts that requests may name, with commas between; none: all"),
    ] = ()
    admin_port: Annotated[
        int | None,
        Field(ge=0, le=MOST_PORT, description="port, of the same address, at which alone to take model control"),
    ] = None
    model_control: Annotated[
        Literal["none", "poll", "explicit"],
        BeforeValidator(_lower),
        Field(
            description="how what is served may change: none, poll (as the repository does), or explicit (by asking)"
        ),
    ] = "none"
    poll_seconds: Annotated[
        float,
        Field(gt=0, le=86400, allow_inf_nan=False, description="how often to look whether the repository changed"),
    ] = 5.0
    trial_seconds: Annotated[
        float,
        Field(gt=0, le=3600, allow_inf_nan=False, description="how long it may take to check what is to be served"),
    ] = 120.0
    tls_cert: Annotated[Path | None, Field(description="file of the certificate, and its chain, to serve TLS by")] = (
        None
    )
    tls_key: Annotated[Path | None, Field(description="file of the certificate's private key")] = None
    max_wait: Annotated[
        float, Field(gt=0, le=3600, allow_inf_nan=False, description="seconds that a request may wait for others")
    ] = 5.0
    max_queue_size: Annotated[int, Field(ge=1, description="rows that may wait or run at once, of a worker")] = 16384
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        BeforeValidator(_lower),
        Field(description="least level that is logged"),
    ] = "info"

    def bounds(self) -> Bounds:
        """What clients may send, and how long they may take."""
        return Bounds(**{field.name: getattr(self, field.name) for field in fields(Bounds)})

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key: expected both or neither; got one")
        if self.model_control == "explicit" and self.keys_file is None:
            raise ValueError("--model-control explicit: expected --keys-file, with a key that may admin; got none")
        if self.admin_port is not None and self.model_control == "none":
            raise ValueError("--admin-port: expected --model-control poll or explicit; got none")
        return self


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An option for each setting; one that is not given is not among the parsed."""
    parser.epilog = "An option wins over its environment variable."
    for name, field in Settings.model_fields.items():
        default = COMPUTED.get(name, field.default)
        default = ",".join(default) if isinstance(default, tuple) else default
        default = "none" if default in (None, "") else default
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
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise ValueError(message) from exc
        name = str(first["loc"][0])
        source = _option(name) if name in given else ENV_PREFIX + name.upper()
        raise ValueError(f"{source}: {message}; got {first['input']!r}") from exc


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
