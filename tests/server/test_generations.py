import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import Conflict
from server.generations import Board, Proposal, Refusal, State, Word, serving_of, versions_of

GONE = 2**22 + 1
"""A process id that no process has."""
serving = st.dictionaries(
    st.text(min_size=1), st.sets(st.integers(1)).map(lambda numbers: tuple(sorted(numbers))), max_size=3
)


@given(serving, serving, st.dictionaries(st.text(), st.text(), max_size=2))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    now: dict[str, tuple[int, ...]],
    then: dict[str, tuple[int, ...]],
    refused: dict[str, str],
) -> None:
    board = Board(tmp_path_factory.mktemp("board"))
    state = State(
        number=3,
        serving=now,
        last=7,
        proposal=Proposal(number=7, serving=then, pid=os.getpid()),
        refused={place: Refusal(reason=reason, seen=reason) for place, reason in refused.items()},
    )
    board.write(state)
    assert board.state() == state
    assert state.versions() == versions_of(now)


def test_the_serving_of_folders() -> None:
    folders = [Path(f"models/{place}") for place in ("b/10", "a/3", "b/2")]
    assert serving_of(folders) == {"b": (2, 10), "a": (3,)}


def test_of_several_who_begin_one_does(tmp_path: Path) -> None:
    first, second = Board(tmp_path), Board(tmp_path)
    assert not first.has_begun()
    first.begin({"a": (1,)})
    second.begin({"a": (2,)})
    assert first.has_begun()
    assert first.state() == second.state() == State(number=1, serving={"a": (1,)}, last=1)
    second._write(second._path, State(number=1, serving={"a": (2,)}, last=1), once=True)  # at the same moment
    assert first.state().serving == {"a": (1,)}
    assert [path.name for path in tmp_path.iterdir()] == ["generation.json"]


def test_a_change_is_seen_by_all(tmp_path: Path) -> None:
    writer, reader = Board(tmp_path), Board(tmp_path)
    writer.begin({})
    before = reader.state()
    assert reader.state() is before
    for number in range(2, 20):
        writer.write(State(number=number, serving={"a": (number,)}, last=number))
        assert reader.state().number == number


def test_a_proposal_goes_with_whoever_makes_it(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.write(State(number=1, serving={}, last=2, proposal=Proposal(number=2, serving={"a": (1,)}, pid=GONE)))
    assert board.state() == State(number=1, serving={}, last=2)


def test_one_change_at_a_time_in_a_process(tmp_path: Path) -> None:
    board, other = Board(tmp_path), Board(tmp_path)
    with board.changing():
        for one in (board, other):
            assert is_held(one)
    assert not is_held(other)


def test_and_in_all_of_them_but_those_that_have_ended(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from server.generations import Board\n" \
        "with Board(Path(sys.argv[1])).changing(): print('holds', flush=True); sys.stdin.read()"  # fmt: skip
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holds\n"
    assert is_held(Board(tmp_path))
    holder.kill()
    holder.communicate()
    assert not is_held(Board(tmp_path))


def is_held(board: Board) -> bool:
    try:
        with board.changing():
            return False
    except Conflict:
        return True


def test_the_words_of_those_who_live(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert board.words() == {}
    board.say(Word(serves=1))
    (tmp_path / f"worker-{GONE}.json").write_text('{"serves": 1}')
    board.say(Word(serves=2, ready=3, failed=4, fault="é"))
    assert board.words() == {os.getpid(): Word(serves=2, ready=3, failed=4, fault="é")}
    board.leave(os.getpid())
    board.leave(GONE)
    board.leave(GONE)
    assert board.words() == {}
    assert list(tmp_path.iterdir()) == []
