import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from server import cli
from tests import tiny


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints that ends well by itself, in one line."""
    with pytest.raises(SystemExit) as exit_:
        cli.run(arguments)
    assert exit_.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_lists_the_commands_and_the_options_of_serving(capsys: pytest.CaptureFixture[str]) -> None:
    out = output(capsys, "--help")
    assert out.startswith("usage: committee-server [serve] [options] committee-server COMMAND --help")
    for name, command in cli.COMMANDS.items():
        assert f"{name} {command.summary}" in out
    assert "--port PORT port to listen on; 0 takes a free one (default: 8000; environment: COMMITTEE_PORT)" in out
    assert "--log-level LEVEL" in out
    assert "(default: one a core; environment: COMMITTEE_WORKERS)" in out
    assert out.endswith("An option wins over its environment variable.")


def test_each_command_has_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--port PORT" in output(capsys, "serve", "--help")
    out = output(capsys, "verify", "--help")
    assert out.startswith(
        "usage: committee-server verify [-h] [--versions VERSIONS] PATH [PATH ...] Check every version "
    )
    assert "--port" not in out


def test_a_command_gets_its_arguments_and_gives_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.write_ensemble(tmp_path)
    assert cli.run(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("ok tiny/1 ")
    (folder / "m1.onnx").unlink()
    assert cli.run(["verify", str(tmp_path)]) == 1


def test_ctrl_c_ends_a_command_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("server.verify.run", interrupt)
    assert cli.run(["verify", "models"]) == 130


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verfy", "models"], ": expected one of serve, verify, models, keys, predict; got 'verfy'"),
        (["Serve"], ": expected one of serve, verify, models, keys, predict; got 'Serve'"),
        ([""], ": expected one of serve, verify, models, keys, predict; got ''"),
        (["verify"], " verify: the following arguments are required: PATH"),
        (["verify", "a", "--port", "1"], " verify: unrecognized arguments: --port 1"),
        (["verify", "a", "--versions", "0"], " verify: argument --versions: expected latest, all, or numbers like 1,3"),
        (["--nope", "1"], ": unrecognized arguments: --nope 1"),
        (["--po", "1"], ": unrecognized arguments: --po 1"),
        (["--port"], ": argument --port: expected one argument"),
        (["--port", "1", "stray"], ": unrecognized arguments: stray"),
        (["serve", "stray"], " serve: unrecognized arguments: stray"),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_ends_with_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.run(arguments)
    out, err = capsys.readouterr()
    assert exit_.value.code == 2
    assert out == ""
    assert err == f"committee-server{said}\n"


@pytest.mark.parametrize("command", [[], ["serve"]], ids=["implied", "named"])
def test_a_wrong_setting_ends_with_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command, "--port", "x"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("committee-server: --port: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], ["onnxruntime", "prometheus_client", "server.offline", "rich"]),
        (["verify", "--help"], ["onnxruntime", "prometheus_client", "gunicorn", "fastapi", "server.offline"]),
    ],
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], absent: list[str]) -> None:
    code = f"""
import sys
from server import cli
try:
    cli.run({arguments})
except SystemExit:
    print(*set({absent}) & sys.modules.keys(), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
