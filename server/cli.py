"""The command `committee-server`: serves, or does one of the other things it is asked by name."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from server.settings import PROGRAM


@dataclass(frozen=True, slots=True)
class Command:
    """A module with `add_arguments(parser)` and `run(options) -> int`, imported only when it is asked for."""

    module: str
    summary: str


SERVE = "serve"
"""What is meant if no command is named."""
COMMANDS: Mapping[str, Command] = {
    SERVE: Command("server.workers", "serve a repository of ensembles; may be left out"),
    "verify": Command("server.verify", "check every version of a repository, as a start would"),
    "models": Command("server.models", "list what is served, load and unload it"),
    "keys": Command("server.keys", "make API keys"),
    "predict": Command("server.offline", "answer the rows of a file, without a server"),
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage that argparse puts before it."""
        self.exit(2, f"{self.prog}: {message}\n")


def run(arguments: Sequence[str]) -> int:
    """Do what the command's arguments say. Returns the exit code; a wrong argument ends the process with 2."""
    named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments[0] if named else SERVE
    parser = _parser(name, named=named)
    if name not in COMMANDS:
        parser.error(f"expected one of {', '.join(COMMANDS)}; got {name!r}")
    module = import_module(COMMANDS[name].module)
    module.add_arguments(parser)
    try:
        return int(module.run(parser.parse_args(arguments[named:])))
    except KeyboardInterrupt:
        return 130


def _parser(name: str, *, named: bool) -> Parser:
    if named and name in COMMANDS:
        summary = COMMANDS[name].summary
        return Parser(prog=f"{PROGRAM} {name}", description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False)
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {key:<{width}}  {command.summary}" for key, command in COMMANDS.items())
    return Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [serve] [options]\n       {PROGRAM} COMMAND --help",
        description=f"Several models behind one endpoint.\n\ncommands:\n{listed}\n\nThe options are those of serve.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
