"""Members that fail, hang or are late cost only themselves. Real graphs, whose rows say how the member behaves."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from server import members
from server import run as run_module
from server.engine import Engine, Limits
from server.ensemble import Ensemble
from server.errors import DeadlineExceeded, MemberFailed, QuorumMissed
from server.plan import Options, make_plan
from server.predicting import drive, predict
from server.prediction import Prediction
from server.repository import Repository, load_version
from server.rows import Rows
from server.session import Stop
from tests import faulty, tiny

OTHERS = ("m1", "m2")
HUNG = ("deadline", "hanging")
"""Whoever hangs is waited for until the deadline, and the next time not so long."""
SECONDS = 60
"""How long to wait for what must happen; it takes well under one."""


@pytest.fixture(scope="module", params=[True, False], ids=["packed", "apart"])
def ensemble(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return load_version(faulty.write(tmp_path_factory.mktemp("models"), packed=request.param))


@pytest.fixture
def threads() -> Iterator[None]:
    """None may be left behind."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def serve(
    ensemble: Ensemble, test: Callable[[Engine], Awaitable[None]], *, failures: int = 0, cooldown: float = 10.0
) -> None:
    """Run `test` with an engine; its breakers open after so many failures, by default never."""

    limits = Limits(SECONDS, failures, cooldown, max_queue_size=100_000)

    async def go() -> None:
        engine = Engine(Repository([ensemble]), default="faulty", limits=limits)
        try:
            await asyncio.wait_for(test(engine), SECONDS)
        finally:
            await engine.close()

    asyncio.run(go())


async def ask(engine: Engine, x: NDArray[np.float32], **options: Any) -> Prediction:
    return await engine.infer(engine.ensemble(), x, Options(**options))


def assert_answered_by_others(prediction: Prediction, x: NDArray[np.float32], *reasons: str) -> None:
    """To the bit what the others alone would answer, and it says so, with one of these reasons."""
    expected = drive(
        prediction.ensemble,
        make_plan(prediction.ensemble, Options(members=OTHERS)),
        len(x),
        lambda asked: prediction.ensemble.run(x, asked.members),
    )
    assert prediction.missing.keys() == {faulty.FAULTY}
    assert prediction.missing[faulty.FAULTY] in reasons
    assert prediction.members == (0, 1)
    assert_array_equal(prediction.weights, expected.weights)
    assert_array_equal(prediction.fused.probabilities, expected.fused.probabilities)


def assert_answered_by_all(prediction: Prediction, x: NDArray[np.float32]) -> None:
    expected = predict(prediction.ensemble, x, make_plan(prediction.ensemble, Options()))
    assert prediction.missing == {}
    assert_array_equal(prediction.fused.probabilities, expected.fused.probabilities)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("fault", "reasons"), [(faulty.RAISE, ["raised"]), (faulty.NAN, ["invalid"]), (faulty.HANG, HUNG)]
)
def test_a_member_that_fails_is_left_out_and_back_again_when_it_works(
    ensemble: Ensemble, fault: float, reasons: Sequence[str]
) -> None:
    async def test(engine: Engine) -> None:
        bad, good = faulty.rows(5, fault, at=3), faulty.rows(5)
        for _ in range(3):
            assert_answered_by_others(await ask(engine, bad, deadline_ms=600), bad, *reasons)
            assert_answered_by_all(await ask(engine, good), good)

    serve(ensemble, test)


@pytest.mark.usefixtures("threads")
def test_a_member_that_hangs_costs_no_thread_however_often(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        bad = faulty.rows(2, faulty.HANG)
        for _ in range(6):
            assert_answered_by_others(await ask(engine, bad, deadline_ms=400), bad, *HUNG)
        assert threading.active_count() < 10
        assert not engine.stuck

    serve(ensemble, test)


def test_who_hangs_is_given_up_long_before_all_requests_end(
    ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "SECONDS", 0.02)

    async def test(engine: Engine) -> None:
        bad = faulty.rows(2, faulty.HANG)
        for _ in range(3):
            assert_answered_by_others(await ask(engine, bad), bad, *HUNG)

    serve(ensemble, test)


def test_requests_with_a_deadline_and_without_share_a_batch(ensemble: Ensemble) -> None:
    batches: list[int] = []
    answer = ensemble.ask

    def ask_and_tell(rows: Rows, *given: Any) -> Any:
        batches.append(len(rows))
        return answer(rows, *given)

    async def test(engine: Engine) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ensemble, "ask", ask_and_tell)
            asked: list[dict[str, Any]] = [
                {},
                {"deadline_ms": 20_000},
                {"strategy": "vote"},
                {"strategy": "weighted", "quorum": 1},
            ]
            await asyncio.gather(*(ask(engine, faulty.rows(2), **options) for options in asked))
        assert batches == [8]

    serve(ensemble, test)


def test_what_is_cheap_and_in_no_hurry_runs_in_the_loops_thread_and_nothing_else_does(ensemble: Ensemble) -> None:
    asked: list[str] = []
    answer = ensemble.ask

    def ask_and_tell(*given: Any) -> Any:
        asked.append(threading.current_thread().name)
        return answer(*given)

    async def test(engine: Engine) -> None:
        costs = engine._members[ensemble].costs
        costs.call[:], costs.row[:] = [1e-6] * 3, [1e-4] * 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ensemble, "ask", ask_and_tell)
            await ask(engine, faulty.rows(1))
            await ask(engine, faulty.rows(1), deadline_ms=20_000)
            costs.row[:] = [1e-2] * 3
            await ask(engine, faulty.rows(1))
        here = threading.current_thread().name
        assert [name == here for name in asked] == [True, False, False]

    serve(ensemble, test)


def test_a_member_that_hangs_in_the_loops_thread_holds_it_up_only_for_a_while(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        engine._members[ensemble].costs.call[:] = [1e-6] * 3
        bad = asyncio.create_task(ask(engine, faulty.rows(1, faulty.HANG)))
        await asyncio.sleep(0)
        x = faulty.rows(2)
        assert (await ask(engine, x, members=OTHERS)).missing == {}
        assert not bad.done()
        bad.cancel()

    serve(ensemble, test)


def test_good_requests_beside_a_hanging_member_are_answered_while_it_hangs(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        bad = asyncio.create_task(ask(engine, faulty.rows(1, faulty.HANG), deadline_ms=20_000))
        await asyncio.sleep(0.01)
        x = faulty.rows(2)
        for _ in range(20):
            prediction = await ask(engine, x, members=OTHERS)
            assert prediction.missing == {}
        assert not bad.done()
        # Those who want the hanging member too get the others' answer.
        prediction = await ask(engine, x)
        assert prediction.missing in ({faulty.FAULTY: "hanging"}, {})
        assert not bad.done()
        bad.cancel()

    serve(ensemble, test)


def test_a_member_that_hangs_in_many_requests_at_once_takes_no_more_than_a_few_threads(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        before = threading.active_count()
        bad = []
        for k in range(30):  # each in a batch of its own, as they ask for different members
            members = (("m3",), ("m1", "m3"), ("m2", "m3"), ("m1", "m2", "m3"))[k % 4]
            bad.append(asyncio.create_task(ask(engine, faulty.rows(1, faulty.HANG), members=members, quorum=1)))
            await asyncio.sleep(0.02)
        assert threading.active_count() - before < 20
        x = faulty.rows(2)
        assert (await ask(engine, x, members=OTHERS)).missing == {}
        for task in bad:
            task.cancel()
        await asyncio.gather(*bad, return_exceptions=True)
        while engine._members[ensemble].calls.total():
            await asyncio.sleep(0.01)
        assert_answered_by_all(await ask(engine, x), x)

    serve(ensemble, test)


def test_a_member_that_fails_over_one_request_answers_its_batch_mates(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        first = asyncio.create_task(ask(engine, faulty.rows(50_000)))  # the others wait for it, and share a batch
        await asyncio.sleep(0)
        good = [faulty.rows(2, seed=k) for k in range(4)]
        bad = [faulty.rows(2, fault) for fault in (faulty.RAISE, faulty.NAN)]
        answers = await asyncio.gather(*(ask(engine, x) for x in (*good[:2], *bad, *good[2:])))
        assert_answered_by_others(answers[2], bad[0], "raised")
        assert answers[3].missing == {faulty.FAULTY: "invalid"}
        for prediction, x in zip((*answers[:2], *answers[4:]), good, strict=True):
            assert_answered_by_all(prediction, x)
        await first

    serve(ensemble, test)


def test_every_request_of_a_batch_has_its_own_deadline(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        bad = faulty.rows(2, faulty.HANG)
        waiting = [asyncio.create_task(ask(engine, bad, deadline_ms=ms)) for ms in (60_000, 800, 40_000, 1200)]
        for k in (1, 3):
            assert_answered_by_others(await waiting[k], bad, *HUNG)
        assert not waiting[0].done()
        for task in waiting:
            task.cancel()

    serve(ensemble, test)


def test_a_caller_that_goes_takes_its_hanging_member_along(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        task = asyncio.create_task(ask(engine, faulty.rows(1, faulty.HANG)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        x = faulty.rows(3)
        assert_answered_by_all(await ask(engine, x), x)

    serve(ensemble, test)


# Too few ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "options", "error", "message"),
    [
        (
            faulty.RAISE,
            {"on_failure": "fail"},
            QuorumMissed,
            "expected answers of at least 3 of 3 members; got 2 (m3: raised)",
        ),
        (faulty.NAN, {"quorum": 3}, QuorumMissed, "expected answers of at least 3 of 3 members; got 2 (m3: invalid)"),
        (
            faulty.HANG,
            {"quorum": 3, "deadline_ms": 600},
            DeadlineExceeded,
            "expected answers of at least 3 of 3 members; got 2 (m3: deadline)",
        ),
        (
            faulty.HANG,
            {"on_failure": "fail", "deadline_ms": 600},
            DeadlineExceeded,
            "expected answers of at least 3 of 3 members; got 2 (m3: deadline)",
        ),
        (
            faulty.RAISE,
            {"members": ["m3"]},
            QuorumMissed,
            "expected answers of at least 1 of 1 members; got 0 (m3: raised)",
        ),
        (
            faulty.NAN,
            {"members": ["m1", "m3"]},
            QuorumMissed,
            "expected answers of at least 2 of 2 members; got 1 (m3: invalid)",
        ),
    ],
)
def test_with_too_few_answers_there_is_none(
    ensemble: Ensemble, fault: float, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    async def test(engine: Engine) -> None:
        with pytest.raises(error) as caught:
            await ask(engine, faulty.rows(2, fault), **options)
        assert str(caught.value) == message

    serve(ensemble, test)


def test_a_quorum_of_fewer_is_enough(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        prediction = await ask(engine, faulty.rows(2, faulty.NAN), members=["m1", "m3"], quorum=1)
        assert prediction.members == (0,)

    serve(ensemble, test)


def test_a_deadline_that_has_passed_starts_nothing(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        began = asyncio.get_running_loop().time() - 1
        with pytest.raises(DeadlineExceeded) as caught:
            await engine.infer(engine.ensemble(), faulty.rows(2), Options(deadline_ms=500), began=began)
        assert "got 0" in str(caught.value)

    serve(ensemble, test)


def test_a_deadline_nearer_than_a_members_cost_does_not_start_it(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        costs = engine._members[ensemble].costs
        costs.row[2] = 10.0  # seconds a row
        x = faulty.rows(2)
        assert_answered_by_others(await ask(engine, x, deadline_ms=5_000), x, "not_started")

    serve(ensemble, test)


# Circuit breakers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [faulty.RAISE, faulty.NAN])
def test_a_member_that_keeps_failing_is_left_alone_until_it_answers_a_trial(ensemble: Ensemble, fault: float) -> None:
    async def test(engine: Engine) -> None:
        bad, good = faulty.rows(2, fault), faulty.rows(2)
        bad[:, -1] = fault
        faulty.blame_members(engine)
        for _ in range(3):
            assert (await ask(engine, bad)).missing[faulty.FAULTY] in ("raised", "invalid")
        assert engine.unreliable() == {"faulty/1": ["m3"]}
        assert engine.can_answer()
        assert_answered_by_others(await ask(engine, good), good, "circuit_open")
        await asyncio.sleep(0.2)
        assert engine.unreliable() == {}
        assert_answered_by_all(await ask(engine, good), good)
        assert_answered_by_all(await ask(engine, good), good)

    serve(ensemble, test, failures=3, cooldown=0.2)


@pytest.mark.parametrize("fault", [faulty.RAISE, faulty.NAN])
def test_rows_that_a_member_fails_over_shut_it_for_nobody(ensemble: Ensemble, fault: float) -> None:
    async def test(engine: Engine) -> None:
        bad, good = faulty.rows(1, fault), faulty.rows(2)
        for _ in range(3):
            assert (await ask(engine, bad)).missing[faulty.FAULTY] in ("raised", "invalid")
            await tried(engine, ensemble)
            assert_answered_by_all(await ask(engine, good), good)
        assert engine.unreliable() == {}

    serve(ensemble, test, failures=1)


@pytest.mark.parametrize("fault", [faulty.RAISE, faulty.NAN, faulty.HANG])
def test_a_member_that_fails_over_its_own_rows_is_left_alone(ensemble: Ensemble, fault: float) -> None:
    async def test(engine: Engine) -> None:
        engine._members[ensemble].own_rows = faulty.rows(1, fault)
        assert (await ask(engine, faulty.rows(1, faulty.NAN))).missing == {faulty.FAULTY: "invalid"}
        await tried(engine, ensemble)
        assert engine.unreliable() == {"faulty/1": ["m3"]}

    serve(ensemble, test, failures=1)


async def tried(engine: Engine, ensemble: Ensemble) -> None:
    """Until no member is on trial any more."""
    while engine._members[ensemble].on_trial:
        await asyncio.sleep(0.001)


def test_without_a_quorum_left_an_engine_cannot_answer(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        for breaker in engine._members[ensemble].breakers[1:]:
            breaker.failed(asyncio.get_running_loop().time())
        assert engine.unreliable() == {"faulty/1": ["m2", "m3"]}
        assert not engine.can_answer()
        with pytest.raises(QuorumMissed, match=r"got 1 \(m2: circuit_open, m3: circuit_open\)"):
            await ask(engine, faulty.rows(1))
        for breaker in engine._members[ensemble].breakers:
            breaker.failed(asyncio.get_running_loop().time())
        with pytest.raises(QuorumMissed, match="got 0"):
            await ask(engine, faulty.rows(1))

    serve(ensemble, test, failures=1)


def test_late_answers_to_callers_in_a_hurry_open_no_circuit(ensemble: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        for _ in range(10):
            with pytest.raises(DeadlineExceeded):
                await ask(engine, faulty.rows(50_000), deadline_ms=0.001)
        assert engine.unreliable() == {}

    serve(ensemble, test, failures=1)


# Threads that are lost ----------------------------------------------------------------------------------------------


class Deaf(Ensemble):
    """Whose runs of the last member end only when they are let, whatever stops them."""

    let_go: threading.Event

    def ask(self, rows: Rows, members: Any, stop: Stop | None = None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        if 2 in members and (rows[:, -1] == faulty.HANG).any():
            self.let_go.wait(SECONDS)
            raise MemberFailed("let go")
        return super().ask(rows, members, stop)


def test_a_call_that_cannot_be_stopped_is_reported_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "STUCK_SECONDS", 0.05)
    sound = load_version(faulty.write(tmp_path))
    deaf = Deaf.__new__(Deaf)
    vars(deaf).update(vars(sound))
    deaf.let_go = threading.Event()

    async def test(engine: Engine) -> None:
        bad, good = faulty.rows(1, faulty.HANG), faulty.rows(3)
        assert_answered_by_others(await ask(engine, bad, deadline_ms=800), bad, *HUNG)
        prediction = await ask(engine, good)
        assert prediction.missing in ({}, {faulty.FAULTY: "hanging"})
        await asyncio.sleep(0.1)
        assert engine.stuck
        deaf.let_go.set()

    serve(deaf, test)


def test_what_nobody_foresaw_reaches_whoever_waits(tmp_path: Path) -> None:
    class Broken(Ensemble):
        def ask(self, rows: Rows, members: Any, stop: Stop | None = None) -> Any:
            if len(rows) == 3:
                raise ZeroDivisionError("a fault of ours")
            return super().ask(rows, members, stop)

    broken = Broken.__new__(Broken)
    vars(broken).update(vars(load_version(faulty.write(tmp_path))))

    async def test(engine: Engine) -> None:
        engine._members[broken].costs.call[:] = [1.0] * 3  # so that a deadline of two seconds is near
        for options in ({}, {"members": ["m1"]}, {"deadline_ms": 2_000}):
            with pytest.raises(ZeroDivisionError, match="a fault of ours"):
                await ask(engine, tiny.rows(3), **options)
        assert (await ask(engine, tiny.rows(2))).missing == {}

    serve(broken, test)
