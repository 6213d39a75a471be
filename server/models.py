"""`committee-server models`: what lies in a repository or is served by a running server, and changes of that."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from server import verify
from server.errors import InvalidRepository
from server.repository import choose_versions, find_ensembles, list_versions, read_version

URL = "http://127.0.0.1:8000"
KEY_VARIABLE = "COMMITTEE_KEY"
SECONDS = 600
"""How long a server may take to answer: a load is answered when all its workers have it."""

Row = Sequence[str]


class _Refused(Exception):
    """What the server, or the way to it, has against it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", type=Path, default=Path("models"), help="the repository to list (default: models)")
    parser.add_argument(
        "--versions", type=verify.chosen_versions, default="latest", help="which a server would serve (default: latest)"
    )
    _add_server(parser, "list what this running server serves and could serve", default=None)
    parser.set_defaults(do=_list)
    actions = parser.add_subparsers(metavar="ACTION", title="actions, of which none lists")
    for name, do, help_ in (
        ("load", _load, "have a running server serve an ensemble, in all its workers"),
        ("unload", _unload, "have a running server serve an ensemble no more"),
    ):
        action = actions.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.", allow_abbrev=False)
        action.add_argument("name", metavar="NAME", help="of the ensemble")
        _add_server(action, f"the server (default: {URL})", default=argparse.SUPPRESS)
        action.set_defaults(do=do)
        if name == "load":
            action.add_argument("--versions", help="latest, all, or numbers like 1,3 (default: as the server's start)")
    check = actions.add_parser("verify", help="as `committee-server verify`", allow_abbrev=False)
    verify.add_arguments(check)
    check.set_defaults(do=verify.run)


def run(options: argparse.Namespace) -> int:
    """Do what the options say. Returns the exit code: 1, after one line, if it cannot be done."""
    try:
        return int(options.do(options))
    except (_Refused, InvalidRepository) as exc:
        print(f"committee-server models: {exc}", file=sys.stderr)  # noqa: T201
        return 1


def _add_server(parser: argparse.ArgumentParser, what: str, *, default: Any) -> None:
    key = f"file of an API key with the scope admin; else the variable {KEY_VARIABLE} is one"
    parser.add_argument("--url", default=default, help=what)
    parser.add_argument("--key-file", type=Path, default=default, help=key)


def _list(options: argparse.Namespace) -> int:
    if options.url is None:
        rows = [
            ("NAME", "VERSION", "SERVED", "MEMBERS", "DESCRIPTION"),
            *_in_repository(options.models, options.versions),
        ]
    else:
        rows = [("NAME", "VERSION", "STATE", "REASON"), *_on_server(options)]
    _print(rows)
    return 0


def _load(options: argparse.Namespace) -> int:
    parameters = {} if options.versions is None else {"versions": options.versions}
    return _change(options, "load", {"parameters": parameters})


def _unload(options: argparse.Namespace) -> int:
    return _change(options, "unload", {})


def _change(options: argparse.Namespace, action: str, body: Mapping[str, Any]) -> int:
    answer = _ask(options, f"/v2/repository/models/{quote(options.name, safe='')}/{action}", body)
    versions = ", ".join(map(str, answer["versions"])) or "no version"
    print(f"{answer['name']}: {versions} served, generation {answer['generation']}")  # noqa: T201
    return 0


def _in_repository(root: Path, versions: Any) -> Iterator[Row]:
    for folder in find_ensembles(root):
        try:
            chosen = {path.name for path in choose_versions(folder, versions)}
            fault = ""
        except InvalidRepository as exc:
            chosen, fault = set(), str(exc).removeprefix(f"{folder}: ")
        if fault:
            yield folder.name, "-", "no", "-", fault
        for version, path in list_versions(folder)[0].items():
            served = "yes" if path.name in chosen else "no"
            try:
                said, _ = read_version(path)
            except InvalidRepository as exc:
                yield folder.name, str(version), "no", "-", str(exc).removeprefix(str(path)).lstrip("/: ")
            else:
                yield folder.name, str(version), served, str(len(said.members)), said.description or said.task


def _on_server(options: argparse.Namespace) -> Iterator[Row]:
    for entry in _ask(options, "/v2/repository/index", {}):
        yield entry["name"], entry["version"] or "-", entry["state"], entry["reason"]


def _ask(options: argparse.Namespace, path: str, body: Mapping[str, Any]) -> Any:
    """What the server answers. Raises _Refused."""
    url = options.url or URL
    if not url.startswith(("http://", "https://")):
        raise _Refused(f"expected a URL like {URL}; got {url!r}")
    request = Request(url.rstrip("/") + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    if key := _key(options):
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urlopen(request, timeout=SECONDS) as response:
            return json.load(response)
    except HTTPError as exc:
        raise _Refused(_why(exc)) from exc
    except (URLError, OSError, ValueError) as exc:
        raise _Refused(f"{url}: {getattr(exc, 'reason', exc)}") from exc


def _why(exc: HTTPError) -> str:
    try:
        return f"{exc.code}: {json.load(exc)['error']}"
    except (ValueError, KeyError, TypeError):
        return f"{exc.code}: {HTTPStatus(exc.code).phrase}; expected Committee"
    finally:
        exc.close()


def _key(options: argparse.Namespace) -> str | None:
    if options.key_file is None:
        return os.environ.get(KEY_VARIABLE)
    try:
        return str(options.key_file.read_text().strip())
    except (OSError, UnicodeDecodeError) as exc:
        raise _Refused(f"{options.key_file}: {getattr(exc, 'strerror', None) or exc}") from exc


def _print(rows: Sequence[Row]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())  # noqa: T201
