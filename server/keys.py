"""API keys: a file of names, scopes and hashes, read anew when it changes; and the command that makes keys.

A key is 256 random bits, so one SHA-256 keeps it: there is no end of keys to try, and salt and a slow hash would only
help against words that people choose. A line of the file is

    name scopes sha256:hash

with commas between scopes. The line `* predict` lets everybody predict, also without a key. Empty lines, and lines that
begin with `#`, say nothing.
"""

import argparse
import hashlib
import logging
import os
import re
import secrets
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from typing import Literal, cast, get_args

from server.errors import InvalidKeys
from server.manifest import NAME_PATTERN

Scope = Literal["predict", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "committee_"
"""Of every key, so that whoever finds one, or a scanner, can tell what it is."""
RANDOM_BYTES = 32
FILE_LIMIT = 1 << 20
"""Bytes of a file of keys."""
ANYBODY = "*"

_HASH = re.compile(r"sha256:([0-9a-f]{64})")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    scopes: frozenset[Scope]
    digest: bytes
    """SHA-256 of the key."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """What a file says."""

    keys: tuple[Key, ...] = ()
    open: bool = False
    """Whether everybody may predict."""

    def find(self, secret: bytes) -> Key | None:
        """The key that this is. It takes as long whichever it is, and whether or not it is one."""
        digest = hashlib.sha256(secret).digest()
        found = None
        for key in self.keys:
            if compare_digest(key.digest, digest):
                found = key
        return found


class Keys:
    """The keys of a file, which is read anew when it has changed. One that cannot be used changes nothing.

    Raises InvalidKeys if it cannot be used to begin with.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: object = None
        self._fault = ""
        self._keyring, self._seen = _read(path)

    def current(self) -> Keyring:
        """What the file says now, or said when it last could be used. Looks at the file's status each time."""
        try:
            seen = _signature(self.path.stat())
        except OSError as exc:
            self._tell(f"{self.path}: {exc.strerror}")
            self._seen = None
            return self._keyring
        if seen != self._seen:
            self._seen = seen  # whatever is wrong with it is found once
            self._read_anew()
        return self._keyring

    def _read_anew(self) -> None:
        try:
            self._keyring, self._seen = _read(self.path)
        except InvalidKeys as exc:
            self._tell(exc.message)
            return
        self._fault = ""
        logger.info("the keys are read anew", extra={"keys": [key.name for key in self._keyring.keys]})

    def _tell(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            logger.error("the keys stay as they were: %s", fault)


def parse_keys(text: str) -> Keyring:
    """Raises InvalidKeys in one line, which repeats nothing of the file but names: it may hold what is secret."""
    keys: dict[str, Key] = {}
    is_open = False
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if fields[0] == ANYBODY:
            if fields[1:] != ["predict"]:
                raise InvalidKeys(f"line {number}: expected `{ANYBODY} predict`, the one thing that everybody may")
            is_open = True
            continue
        key = _parse_key(fields, f"line {number}")
        if key.name in keys:
            raise InvalidKeys(f"line {number}: expected each name once; got {key.name!r} again")
        if any(key.digest == other.digest for other in keys.values()):
            raise InvalidKeys(f"line {number}: expected each hash once; that of {key.name!r} stands above")
        keys[key.name] = key
    return Keyring(tuple(keys.values()), is_open)


def make_key(name: str, scopes: Sequence[Scope]) -> tuple[str, str]:
    """A new key, and the line for it."""
    secret = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    return secret, f"{name} {','.join(scopes)} sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    new = actions.add_parser(
        "new",
        help="make a key",
        description="Make a key. It is written to stderr, and kept nowhere; its line, for the file, to stdout.",
        allow_abbrev=False,
    )
    new.add_argument("--name", required=True, type=_name, help="whose it is, for people and for the log")
    new.add_argument(
        "--scopes",
        type=_scopes,
        default="predict",
        help=f"what it is good for: some of {', '.join(SCOPES)}, with commas between (default: predict)",
    )


def run(options: argparse.Namespace) -> int:
    """Make a key. Returns the exit code."""
    secret, line = make_key(options.name, options.scopes)
    print(f"the key, which is shown only here: {secret}", file=sys.stderr, flush=True)  # noqa: T201
    print(line, flush=True)  # noqa: T201
    return 0


def _parse_key(fields: Sequence[str], where: str) -> Key:
    if len(fields) != 3:
        raise InvalidKeys(f"{where}: expected `name scopes sha256:hash`; got {len(fields)} fields")
    if not re.fullmatch(NAME_PATTERN, fields[0]):
        raise InvalidKeys(f"{where}: expected a name, {NAME_PATTERN}; got something else")
    scopes = fields[1].split(",")
    if not set(scopes) <= set(SCOPES) or len(set(scopes)) < len(scopes):
        raise InvalidKeys(f"{where}: expected scopes, some of {', '.join(SCOPES)}; got something else")
    if not (match := _HASH.fullmatch(fields[2])):
        raise InvalidKeys(f"{where}: expected sha256: and 64 hexadecimal digits; got something else")
    return Key(fields[0], frozenset(cast(list[Scope], scopes)), bytes.fromhex(match[1]))


def _read(path: Path) -> tuple[Keyring, object]:
    """What a file says, and what its status was. Raises InvalidKeys."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # and wait for no pipe
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidKeys(f"{path}: expected a regular file; got {stat.filemode(status.st_mode)}")
            data = file.read(FILE_LIMIT + 1)
    except OSError as exc:
        raise InvalidKeys(f"{path}: {exc.strerror}") from exc
    if len(data) > FILE_LIMIT:
        raise InvalidKeys(f"{path}: expected at most {FILE_LIMIT} bytes; got more")
    try:
        return parse_keys(data.decode()), _signature(status)
    except UnicodeDecodeError as exc:
        raise InvalidKeys(f"{path}: expected UTF-8; got something else") from exc
    except InvalidKeys as exc:
        raise InvalidKeys(f"{path}: {exc.message}") from exc


def _signature(status: os.stat_result) -> object:
    return status.st_mtime_ns, status.st_ino, status.st_size, status.st_dev


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(f"expected {NAME_PATTERN}; got {text!r}")
    return text


def _scopes(text: str) -> list[Scope]:
    scopes = text.split(",")
    if not set(scopes) <= set(SCOPES) or len(set(scopes)) < len(scopes):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(SCOPES)}; got {text!r}")
    return cast(list[Scope], scopes)
