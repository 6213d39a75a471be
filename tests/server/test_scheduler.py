"""Big requests in parts, and who is let in: through the engine, with real graphs."""

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from server.app import create_app
from server.costs import Costs
from server.engine import Engine, Limits
from server.ensemble import Ensemble
from server.errors import DeadlineExceeded, MemberFailed, Overloaded, QuorumMissed
from server.plan import Options, make_plan
from server.predicting import predict
from server.prediction import Prediction
from server.repository import Repository, load_version
from server.settings import Settings
from tests import faulty, tiny
from tests.server.served_http import parse, post, served
from tests.server.test_telemetry import value

SECONDS = 60
AT_ONCE = 4
"""Rows of a batch, in these tests."""


@pytest.fixture(autouse=True, scope="module")
def _small_batches() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Costs, "rows_at_once", lambda self, members: AT_ONCE)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for write in (tiny.write_stacked, tiny.write_packed_stacked, tiny.write_cascade, tiny.write_regression):
        write(root)
    return root


@pytest.fixture(scope="module")
def ensembles(root: Path) -> dict[str, Ensemble]:
    return {ensemble.manifest.name: ensemble for ensemble in Repository.load(root).ensembles()}


@pytest.fixture(params=[True, False], ids=["packed", "apart"])
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> Ensemble:
    return load_version(faulty.write(tmp_path, packed=request.param))


def serve(ensemble: Ensemble, test: Callable[[Engine], Awaitable[None]], **limits: Any) -> None:
    async def go() -> None:
        engine = Engine(
            Repository([ensemble]),
            default=ensemble.manifest.name,
            limits=Limits(**{"deadline": SECONDS, "breaker_failures": 0, **limits}),
        )
        try:
            await asyncio.wait_for(test(engine), SECONDS)
            assert not engine._scheduler.busy
        finally:
            await engine.close()
        assert engine._scheduler._admission.wait() == pytest.approx(0, abs=1e-9)

    asyncio.run(go())


async def ask(engine: Engine, x: NDArray[np.float32], **options: Any) -> Prediction:
    return await engine.infer(engine.ensemble(), x, Options(**options))


def assert_is_whole_answer(found: Prediction, x: NDArray[np.float32], options: Options) -> None:
    """To the bit what a call for all the rows answers."""
    expected = predict(found.ensemble, x, make_plan(found.ensemble, options))
    assert found.missing == {}
    assert found.members == expected.members
    assert_array_equal(found.weights, expected.weights)
    assert_array_equal(found.member_probabilities, expected.member_probabilities)
    assert_array_equal(found.fused.probabilities, expected.fused.probabilities)
    assert_array_equal(found.fused.labels, expected.fused.labels)
    if expected.stages is not None:
        assert found.stages is not None
        assert_array_equal(found.stages, expected.stages)


class Spy:
    """Tells of the batches of an ensemble, and makes each take a while if it shall."""

    def __init__(self, patch: pytest.MonkeyPatch, ensemble: Ensemble, seconds: float = 0.0) -> None:
        self.sizes: list[int] = []
        answer = ensemble.ask

        def ask(rows: Any, *given: Any) -> Any:
            self.sizes.append(len(rows))
            time.sleep(seconds)
            return answer(rows, *given)

        patch.setattr(ensemble, "ask", ask)


# Parts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stacked", "packed_stacked", "cascade", "regression"])
@pytest.mark.parametrize("n", [AT_ONCE, AT_ONCE + 1, 10 * AT_ONCE - 1])
@pytest.mark.parametrize("deadline_ms", [None, SECONDS * 1000])
def test_a_big_request_is_answered_in_parts_as_if_whole(
    ensembles: dict[str, Ensemble], name: str, n: int, deadline_ms: float | None
) -> None:
    ensemble, x = ensembles[name], tiny.rows(n)

    async def test(engine: Engine) -> None:
        for strategy in ensemble.strategies:
            with pytest.MonkeyPatch.context() as patch:
                spy = Spy(patch, ensemble)
                found = await ask(engine, x, strategy=strategy, deadline_ms=deadline_ms)
            assert_is_whole_answer(found, x, Options(strategy=strategy))
            assert max(spy.sizes) <= AT_ONCE
            assert len(spy.sizes) >= -(-n // AT_ONCE)

    serve(ensemble, test)


def test_a_big_request_whose_deadline_is_near_is_answered_by_the_members_that_can(
    ensembles: dict[str, Ensemble],
) -> None:
    """Each of them over all rows, as in parts none might be done with the last one."""
    ensemble, x = ensembles["packed_stacked"], tiny.rows(20 * AT_ONCE)

    async def test(engine: Engine) -> None:
        engine._members[ensemble].costs.row[2] = 10.0  # seconds
        with pytest.MonkeyPatch.context() as patch:
            spy = Spy(patch, ensemble)
            found = await ask(engine, x, strategy="average", deadline_ms=20_000)
        assert found.missing == {"m3": "not_started"}
        assert set(spy.sizes) == {len(x)}
        others = predict(ensemble, x, make_plan(ensemble, Options(strategy="average", members=("m1", "m2"))))
        assert_array_equal(found.fused.probabilities, others.fused.probabilities)

    serve(ensemble, test)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["average", "vote", "weighted"])), max_size=8))
def test_requests_of_any_size_at_once_all_get_their_own_answers(requests: list[tuple[int, str]]) -> None:
    ensemble = tiny.answering(3, tiny.N_FEATURES)
    rng = np.random.default_rng(len(requests))
    asked = [(rng.dirichlet(np.ones(tiny.N_FEATURES), n).astype(np.float32), strategy) for n, strategy in requests]

    async def test(engine: Engine) -> None:
        found = await asyncio.gather(*(ask(engine, x, strategy=strategy) for x, strategy in asked))
        for prediction, (x, strategy) in zip(found, asked, strict=True):
            assert_is_whole_answer(prediction, x, Options(strategy=strategy))

    serve(ensemble, test)


def test_a_small_request_does_not_wait_for_a_big_one(ensembles: dict[str, Ensemble]) -> None:
    ensemble, x = ensembles["stacked"], tiny.rows(100 * AT_ONCE)

    async def test(engine: Engine) -> None:
        with pytest.MonkeyPatch.context() as patch:
            spy = Spy(patch, ensemble)
            big = asyncio.create_task(ask(engine, x))
            while len(spy.sizes) < 5:
                await asyncio.sleep(0)
            begun = len(spy.sizes)
            small = await ask(engine, x[:1])
            assert not big.done()
            assert len(spy.sizes) <= begun + 4  # two parts were queued, and one or two ran meanwhile
        assert_is_whole_answer(small, x[:1], Options())
        assert_is_whole_answer(await big, x, Options())

    serve(ensemble, test)


def test_a_small_request_is_not_refused_for_a_big_one(ensembles: dict[str, Ensemble]) -> None:
    """However long that takes: it waits for parts of it only."""
    ensemble = ensembles["stacked"]

    async def test(engine: Engine) -> None:
        engine._members[ensemble].costs.row[:] = [0.01] * 3  # 12 seconds in all
        big = asyncio.create_task(ask(engine, tiny.rows(100 * AT_ONCE)))
        await asyncio.sleep(0)
        engine._members[ensemble].costs.row[:] = [1e-5] * 3
        assert engine._scheduler._admission.wait() < 1 < 5 < engine._scheduler._admission.wait(100)
        small = await ask(engine, tiny.rows(1), deadline_ms=1000)
        assert small.missing == {}
        assert not big.done()
        assert (await big).missing == {}

    serve(ensemble, test)


@pytest.mark.parametrize(("fault", "reason"), [(faulty.RAISE, "raised"), (faulty.NAN, "invalid")])
@pytest.mark.parametrize("at", [0, 9, 18])
def test_a_member_that_fails_over_one_part_has_no_part_in_the_answer(
    broken: Ensemble, fault: float, reason: str, at: int
) -> None:
    x = faulty.rows(19, fault, at=at)

    async def test(engine: Engine) -> None:
        found = await ask(engine, x)
        assert found.missing == {"m3": reason}
        expected = predict(broken, x, make_plan(broken, Options(members=["m1", "m2"])))
        assert_array_equal(found.member_probabilities, expected.member_probabilities)
        assert_array_equal(found.fused.probabilities, expected.fused.probabilities)
        with pytest.raises(QuorumMissed, match=f"m3: {reason}"):
            await ask(engine, x, on_failure="fail")
        assert (await ask(engine, faulty.rows(19))).missing == {}

    serve(broken, test)


def test_a_fault_of_ours_in_one_part_reaches_the_caller_and_stops_the_others(
    ensembles: dict[str, Ensemble], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble, asked = ensembles["stacked"], []
    answer = ensemble.ask

    def fail(rows: Any, *given: Any) -> Any:
        asked.append(len(rows))
        if len(asked) == 3:
            raise ZeroDivisionError("ours")
        return answer(rows, *given)

    async def test(engine: Engine) -> None:
        monkeypatch.setattr(ensemble, "ask", fail)
        with pytest.raises(ZeroDivisionError, match="ours"):
            await ask(engine, tiny.rows(100 * AT_ONCE))
        assert len(asked) <= 5
        monkeypatch.undo()
        assert (await ask(engine, tiny.rows(100 * AT_ONCE))).missing == {}

    monkeypatch.setattr(Costs, "rows_at_once", lambda self, members: AT_ONCE)
    serve(ensemble, test)


@pytest.mark.parametrize(("limit", "deadline_ms"), [(0.1, None), (SECONDS, 100)])
def test_once_its_time_is_over_no_more_parts_are_begun(
    ensembles: dict[str, Ensemble], limit: float, deadline_ms: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = ensembles["stacked"]

    async def test(engine: Engine) -> None:
        spy = Spy(monkeypatch, ensemble, seconds=0.02)
        with pytest.raises(DeadlineExceeded, match="m1: deadline, m2: deadline, m3: deadline"):
            await ask(engine, tiny.rows(200 * AT_ONCE), deadline_ms=deadline_ms)
        assert 1 <= len(spy.sizes) < 40
        while engine._scheduler.busy:
            await asyncio.sleep(0.005)

    serve(ensemble, test, deadline=limit)


def test_who_goes_takes_the_parts_along(ensembles: dict[str, Ensemble]) -> None:
    ensemble = ensembles["stacked"]

    async def test(engine: Engine) -> None:
        with pytest.MonkeyPatch.context() as patch:
            spy = Spy(patch, ensemble)
            big = asyncio.create_task(ask(engine, tiny.rows(100 * AT_ONCE)))
            while len(spy.sizes) < 3:
                await asyncio.sleep(0)
            big.cancel()
            with pytest.raises(asyncio.CancelledError):
                await big
            begun = len(spy.sizes)
            assert (await ask(engine, tiny.rows(1))).missing == {}
            assert len(spy.sizes) == begun + 1 < 10

    serve(ensemble, test)


@pytest.mark.parametrize("options", [{}, {"deadline_ms": SECONDS * 1000}], ids=["inline", "in a thread"])
@pytest.mark.parametrize("n_rows", [1, 3 * AT_ONCE], ids=["whole", "in parts"])
def test_the_rows_of_a_request_go_with_it_and_need_no_garbage_collector(
    ensembles: dict[str, Ensemble], n_rows: int, options: dict[str, Any]
) -> None:
    async def test(engine: Engine) -> None:
        rows = tiny.rows(n_rows)
        held = weakref.ref(rows)
        await ask(engine, rows, **options)
        del rows
        while held() is not None:  # a thread lets go of them a little later
            await asyncio.sleep(0.001)

    gc.collect()
    gc.disable()
    try:
        serve(ensembles["stacked"], test)
    finally:
        gc.enable()


def test_with_all_circuits_open_nothing_is_asked(broken: Ensemble) -> None:
    async def test(engine: Engine) -> None:
        faulty.blame_members(engine)
        with pytest.MonkeyPatch.context() as patch:

            def fail(*_: Any) -> Any:
                raise MemberFailed("no")

            patch.setattr(broken, "ask", fail)
            with pytest.raises(QuorumMissed, match="raised"):
                await ask(engine, faulty.rows(1))
        with pytest.raises(QuorumMissed, match="m1: circuit_open, m2: circuit_open, m3: circuit_open"):
            await ask(engine, faulty.rows(3 * AT_ONCE))

    serve(broken, test, breaker_failures=1)


# Who is let in ------------------------------------------------------------------------------------------------------


def test_requests_are_refused_beyond_the_rows_and_the_seconds_that_may_wait(ensembles: dict[str, Ensemble]) -> None:
    ensemble = ensembles["stacked"]

    async def refused(engine: Engine, n: int) -> int:
        found = await asyncio.gather(*(ask(engine, tiny.rows(2)) for _ in range(n)), return_exceptions=True)
        for prediction in found:
            assert isinstance(prediction, (Prediction, Overloaded))
        return sum(isinstance(prediction, Overloaded) for prediction in found)

    async def by_rows(engine: Engine) -> None:
        assert await refused(engine, 5) == 0
        assert await refused(engine, 8) == 3
        assert await refused(engine, 5) == 0

    async def by_seconds(engine: Engine) -> None:
        engine._members[ensemble].costs.row[:] = [0.5, 0.25, 0.25]  # two seconds each
        assert await refused(engine, 5) == 1

    serve(ensemble, by_rows, max_queue_size=10)
    serve(ensemble, by_seconds, max_wait=7.0)


def test_what_a_cascade_asks_next_is_not_refused(ensembles: dict[str, Ensemble]) -> None:
    ensemble = ensembles["cascade"]

    async def test(engine: Engine) -> None:
        found = await ask(engine, tiny.rows(3), cascade_threshold=1.0)
        assert found.stages is not None
        assert set(found.stages) == {2}

    serve(ensemble, test, max_queue_size=1, max_wait=1e-9)


def test_over_http_an_overload_is_503_and_says_when_to_come_again(root: Path) -> None:
    app = create_app(Settings(models=root, default="stacked", max_wait=3.0))
    counted = 'committee_http_requests_total{method="POST",route="/predict",status="503"}'
    errors = 'committee_errors_total{code="overloaded"}'
    before = value(counted), value(errors)
    admission = app.state.engine._scheduler._admission
    with served(app) as server:
        for path in ("/predict", "/v1/ensembles/st%61cked/predict"):  # either road
            ticket = admission.enter(8.5, 1, left=None, turn=8.5)
            [answer] = parse(server.send(post(path, close=True)))
            admission.leave(ticket, answered=False)
            assert answer.status == 503
            assert answer.header("retry-after") == "9"
            assert answer.json()["code"] == "overloaded"
            assert answer.json()["error"] == "the server is busy: others take 8.500 s, of at most 3 s"
            [answer] = parse(server.send(post(path, close=True)))
            assert answer.status == 200
    assert (value(counted) - before[0], value(errors) - before[1]) == (1, 2)
