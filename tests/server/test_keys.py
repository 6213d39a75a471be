import argparse
import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import cli
from server.errors import InvalidKeys
from server.keys import FILE_LIMIT, SCOPES, Keyring, Keys, Scope, add_arguments, make_key, parse_keys

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", fullmatch=True)
scopes = st.lists(st.sampled_from(SCOPES), min_size=1, unique=True)
silent = st.sampled_from(["", "  ", "# nothing", "\t#"])


@given(st.dictionaries(names, scopes, max_size=5), st.booleans(), st.data())
def test_what_is_written_is_read(said: dict[str, list[Scope]], is_open: bool, data: st.DataObject) -> None:
    made = {name: make_key(name, scopes) for name, scopes in said.items()}
    lines = [line for _, line in made.values()] + ["* predict"] * is_open
    for _ in range(data.draw(st.integers(0, 3))):
        lines.insert(data.draw(st.integers(0, len(lines))), data.draw(silent))
    keyring = parse_keys("\n".join(lines) + "\n" * data.draw(st.integers(0, 1)))
    assert keyring.open is is_open
    assert {key.name: set(key.scopes) for key in keyring.keys} == {name: set(scopes) for name, scopes in said.items()}
    for name, (secret, _) in made.items():
        found = keyring.find(secret.encode())
        assert found is not None
        assert found.name == name
        assert keyring.find(secret.encode()[:-1]) is None
        assert keyring.find(hashlib.sha256(secret.encode()).hexdigest().encode()) is None


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_and_a_refusal_repeats_none_of_it(text: str) -> None:
    said = [line for line in text.split("\n") if line.split() and not line.split()[0].startswith("#")]
    if all(line.split() == ["*", "predict"] for line in said):
        assert parse_keys(text) == Keyring(open=bool(said))
        return
    with pytest.raises(InvalidKeys) as exc:  # nobody chances upon a hash
        parse_keys(text)
    assert re.fullmatch(
        r"line \d+: expected [^\n]*; got (\d fields|something else)|.* everybody may", exc.value.message
    )


SECRET, LINE = make_key("app", ["predict"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("app", "expected `name scopes sha256:hash`; got 1 fields"),
        (f"{LINE} more", "expected `name scopes sha256:hash`; got 4 fields"),
        (LINE.replace("app", "a.b", 1), "expected a name, "),
        (LINE.replace("predict", "predict,"), "expected scopes, some of predict, admin; got something else"),
        (LINE.replace("predict", "predict,predict"), "expected scopes"),
        (LINE.replace("predict", "Admin"), "expected scopes"),
        (LINE[:-1], "expected sha256: and 64 hexadecimal digits; got something else"),
        (LINE.replace("sha256:", "sha256:A"), "expected sha256: and 64"),
        (f"app predict {SECRET}", "expected sha256: and 64"),
        ("* admin", "expected `* predict`"),
        ("*", "expected `* predict`"),
        (LINE.replace("app", "other", 1), "expected each hash once; that of 'other' stands above"),
        (make_key("app", ["admin"])[1], "expected each name once; got 'app' again"),
    ],
)
def test_a_line_that_is_refused(line: str, said: str) -> None:
    with pytest.raises(InvalidKeys) as exc:
        parse_keys(f"# one\n{LINE}\n\n{line}\n")
    assert exc.value.message.startswith(f"line 4: {said}")
    assert SECRET not in exc.value.message


def test_a_new_key_is_long_and_another_each_time() -> None:
    secrets = {make_key("a", ["predict"])[0] for _ in range(20)}
    assert len(secrets) == 20
    assert all(re.fullmatch(r"committee_[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


class TestTheFile:
    def test_is_read_anew_when_it_changes(self, tmp_path: Path) -> None:
        path = write(tmp_path / "keys", LINE)
        keys = Keys(path)
        first = keys.current()
        assert [key.name for key in first.keys] == ["app"]
        assert keys.current() is first
        write(path, LINE, make_key("ops", ["admin"])[1])
        assert [key.name for key in keys.current().keys] == ["app", "ops"]
        write(tmp_path / "next", make_key("new", ["admin"])[1]).replace(path)
        assert [key.name for key in keys.current().keys] == ["new"]

    @pytest.mark.parametrize(
        ("break_it", "said"),
        [
            (lambda path: write(path, "x"), "line 1: expected "),
            (lambda path: path.write_bytes(b"\xff"), "expected UTF-8"),
            (lambda path: path.write_bytes(b"#" * (FILE_LIMIT + 1)), f"expected at most {FILE_LIMIT} bytes"),
            (lambda path: path.unlink(), "No such file"),
            (make_pipe, "expected a regular file; got p"),
        ],
        ids=["fault", "no text", "long", "gone", "pipe"],
    )
    def test_one_that_is_broken_changes_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, break_it: Callable[[Path], object], said: str
    ) -> None:
        path = write(tmp_path / "keys", LINE)
        keys = Keys(path)
        before = keys.current()
        break_it(path)
        with caplog.at_level(logging.ERROR):
            assert [keys.current() for _ in range(3)] == [before] * 3
        [told] = caplog.messages
        assert told.startswith(f"the keys stay as they were: {path}: {said}")
        path.unlink(missing_ok=True)
        write(path, make_key("mended", ["admin"])[1])
        assert [key.name for key in keys.current().keys] == ["mended"]

    def test_one_that_is_broken_to_begin_with(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidKeys, match="No such file"):
            Keys(tmp_path / "keys")
        with pytest.raises(InvalidKeys, match=f"^{tmp_path}/keys: line 1: "):
            Keys(write(tmp_path / "keys", "x"))


class TestTheCommand:
    def test_shows_the_key_apart_from_its_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["keys", "new", "--name", "ci", "--scopes", "admin,predict"]) == 0
        out, err = capsys.readouterr()
        [key] = parse_keys(out).keys
        assert (key.name, set(key.scopes)) == ("ci", {"admin", "predict"})
        secret = err.split()[-1]
        assert parse_keys(out).find(secret.encode()) == key
        assert secret not in out

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "the following arguments are required: ACTION"),
            (["new"], "the following arguments are required: --name"),
            (["new", "--name", "a b"], "argument --name: expected "),
            (["new", "--name", "a", "--scopes", "root"], "argument --scopes: expected some of predict, admin; got "),
        ],
    )
    def test_refuses(self, arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exit_:
            cli.run(["keys", *arguments])
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err

    def test_predicts_by_default(self) -> None:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        assert parser.parse_args(["new", "--name", "a"]).scopes == ["predict"]


def test_no_keys_are_none() -> None:
    assert Keyring().find(b"") is None


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
