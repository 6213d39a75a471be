import argparse
import os
import re
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.bounds import Bounds
from server.settings import Settings, add_arguments, available_cores, read_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("COMMITTEE_"):
            monkeypatch.delenv(name)


def cores(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(n)))


def read(*arguments: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read_settings(parser.parse_args(arguments))


class TestReadSettings:
    def test_defaults(self) -> None:
        settings = read()
        assert settings.model_dump() == {
            "host": "127.0.0.1",
            "port": 8000,
            "grpc_port": 8001,
            "models": Path("models"),
            "default": "fashion",
            "versions": "latest",
            "workers": available_cores(),
            "threads": 1,
            "deadline": 30.0,
            "breaker_failures": 5,
            "breaker_cooldown": 10.0,
            "max_wait": 5.0,
            "max_queue_size": 16384,
            "log_level": "info",
            "providers": ("cpu",),
            "tracing": "off",
            "keep_alive": 75,
            **{field.name: getattr(Bounds(), field.name) for field in fields(Bounds)},
            "keys_file": None,
            "trusted_hosts": (),
            "tls_cert": None,
            "tls_key": None,
            "admin_port": None,
            "model_control": "none",
            "poll_seconds": 5.0,
            "trial_seconds": 120.0,
        }

    def test_bounds(self) -> None:
        assert read().bounds() == Bounds()
        assert read("--max-rows", "7", "--write-timeout=2").bounds() == Bounds(max_rows=7, write_timeout=2.0)

    def test_reads_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"PORT": "9000", "WORKERS": "3", "MODELS": "/srv/m", "LOG_LEVEL": "DEBUG"}.items():
            monkeypatch.setenv(f"COMMITTEE_{name}", value)
        settings = read()
        assert (settings.port, settings.workers, settings.models) == (9000, 3, Path("/srv/m"))
        assert settings.log_level == "debug"

    def test_options_win_over_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COMMITTEE_PORT", "9000")
        monkeypatch.setenv("COMMITTEE_HOST", "::1")
        settings = read("--port", "9001", "--log-level=warning")
        assert (settings.port, settings.host, settings.log_level) == (9001, "::1", "warning")

    @pytest.mark.parametrize(
        ("n_cores", "options", "threads"),
        [
            (4, ["--workers=4"], 1),
            (4, ["--workers=1"], 4),
            (5, ["--workers=2"], 2),
            (2, ["--workers=8"], 1),
            (4, ["--workers=4", "--threads=3"], 3),
            (4, ["--workers=1", "--threads=1"], 1),
        ],
    )
    def test_threads_share_the_cores(
        self, n_cores: int, options: list[str], threads: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("server.settings.available_cores", lambda: n_cores)
        assert read(*options).threads == threads

    def test_who_may_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"MAX_WAIT": "0.25", "MAX_QUEUE_SIZE": "100"}.items():
            monkeypatch.setenv(f"COMMITTEE_{name}", value)
        assert (read().max_wait, read().max_queue_size) == (0.25, 100)
        settings = read("--max-wait", "10", "--max-queue-size", "1")
        assert (settings.max_wait, settings.max_queue_size) == (10, 1)

    def test_what_failure_may_cost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"DEADLINE": "0.5", "BREAKER_FAILURES": "0", "BREAKER_COOLDOWN": "2e-1"}.items():
            monkeypatch.setenv(f"COMMITTEE_{name}", value)
        settings = read()
        assert (settings.deadline, settings.breaker_failures, settings.breaker_cooldown) == (0.5, 0, 0.2)
        settings = read("--deadline", "3600", "--breaker-failures=3", "--breaker-cooldown", "1")
        assert (settings.deadline, settings.breaker_failures, settings.breaker_cooldown) == (3600, 3, 1)

    @pytest.mark.parametrize(("text", "port"), [("0", 0), ("9001", 9001), ("off", None), ("OFF", None)])
    def test_grpc_port(self, text: str, port: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
        assert read().grpc_port == 8001
        monkeypatch.setenv("COMMITTEE_GRPC_PORT", text)
        assert read().grpc_port == port
        assert read("--grpc-port", text).grpc_port == port

    @pytest.mark.parametrize(
        ("text", "versions"),
        [("latest", "latest"), ("all", "all"), ("3", frozenset({3})), ("1,3", frozenset({1, 3}))],
    )
    def test_versions(self, text: str, versions: object, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COMMITTEE_VERSIONS", text)
        assert read().versions == versions
        assert read("--versions", text).versions == versions

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--port", "x"], "--port: "),
            (["--port", "65536"], "--port: "),
            (["--port", "-1"], "--port: "),
            (["--grpc-port", "65536"], "--grpc-port: expected a number from 0 to 65535, or off; got '65536'"),
            (["--grpc-port", "no"], "--grpc-port: expected a number from 0 to 65535, or off; got 'no'"),
            (["--workers", "0"], "--workers: "),
            (["--threads", "0"], "--threads: Input should be greater than or equal to 1; got '0'"),
            (["--max-wait", "0"], "--max-wait: Input should be greater than 0; got '0'"),
            (["--max-queue-size", "0"], "--max-queue-size: Input should be greater than or equal to 1; got '0'"),
            (["--deadline", "0"], "--deadline: Input should be greater than 0; got '0'"),
            (["--deadline", "3601"], "--deadline: Input should be less than or equal to 3600; got '3601'"),
            (["--deadline", "inf"], "--deadline: "),
            (["--deadline", "nan"], "--deadline: "),
            (["--breaker-failures", "-1"], "--breaker-failures: Input should be greater than or equal to 0; got '-1'"),
            (["--breaker-failures", "1.5"], "--breaker-failures: "),
            (["--breaker-cooldown", "0"], "--breaker-cooldown: Input should be greater than 0; got '0'"),
            (["--breaker-cooldown", "inf"], "--breaker-cooldown: "),
            (["--versions", "1,,2"], "--versions: expected latest, all, or numbers like 1,3; got '1,,2'"),
            (["--versions", "0"], "--versions: "),
            (["--versions", "²"], "--versions: "),
            (["--log-level", "loud"], "--log-level: "),
            (["--host", ""], "--host: "),
        ],
    )
    def test_a_wrong_option_is_told_in_one_line(self, arguments: list[str], said: str) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(said)}") as caught:
            read(*arguments)
        assert str(caught.value).isprintable()

    def test_wrong_variables_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COMMITTEE_PORT", "tcp://10.0.0.1:80")
        with pytest.raises(ValueError, match=r"^COMMITTEE_PORT: .*; got 'tcp://10\.0\.0\.1:80'$"):
            read()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


class TestAvailableCores:
    def test_affinity_where_there_is_no_quota(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cores(6, monkeypatch)
        assert available_cores(tmp_path) == 6

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("max 100000", 6), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 6)],
    )
    def test_version_2(self, text: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cores(6, monkeypatch)
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert available_cores(tmp_path) == expected

    @pytest.mark.parametrize(("quota", "expected"), [("-1", 6), ("300000", 3), ("1000", 1)])
    def test_version_1(self, quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cores(6, monkeypatch)
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota + "\n")
        (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
        assert available_cores(tmp_path) == expected


class TestProviders:
    @pytest.mark.parametrize(("text", "names"), [("cpu", ("cpu",)), ("CUDA,cpu", ("cuda", "cpu"))])
    def test_names(self, text: str, names: tuple[str, ...]) -> None:
        assert read("--providers", text).providers == names

    @pytest.mark.parametrize("text", ["", "gpu", "cuda,", "cuda, cpu", "CPUExecutionProvider"])
    def test_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"--providers: expected some of cpu, cuda, tensorrt, openvino, .*; got "):
            read("--providers", text)


class TestHosts:
    @pytest.mark.parametrize(
        ("text", "hosts"),
        [("localhost", ("localhost",)), ("A.b,*.c,[::1],10.0.0.1", ("a.b", "*.c", "[::1]", "10.0.0.1"))],
    )
    def test_names(self, text: str, hosts: tuple[str, ...]) -> None:
        assert read("--trusted-hosts", text).trusted_hosts == hosts

    @pytest.mark.parametrize("text", ["", "a:80", "a,", "*", "a.*", "http://a", "::1", "a b"])
    def test_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"--trusted-hosts: expected names, .*, and no ports; got "):
            read("--trusted-hosts", text)


@pytest.mark.parametrize("option", ["--tls-cert", "--tls-key"])
def test_a_certificate_goes_with_its_key(option: str) -> None:
    with pytest.raises(ValueError, match=r"^--tls-cert and --tls-key: expected both or neither; got one$"):
        read(option, "x.pem")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--model-control", "explicit"],
            "--model-control explicit: expected --keys-file, with a key that may admin; got none",
        ),
        (["--admin-port", "9000"], "--admin-port: expected --model-control poll or explicit; got none"),
        (["--model-control", "yes"], "--model-control: Input should be 'none', 'poll' or 'explicit'; got 'yes'"),
        (["--poll-seconds", "0"], "--poll-seconds: Input should be greater than 0; got '0'"),
    ],
)
def test_model_control_that_is_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        read(*arguments)


def test_model_control() -> None:
    assert read("--model-control", "POLL", "--admin-port", "0", "--poll-seconds", "0.5").model_control == "poll"
    assert read("--model-control", "explicit", "--keys-file", "keys").keys_file == Path("keys")
