import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from onnx import TensorProto, helper

from server import telemetry, uncertainty
from server.engine import Engine, Limits
from server.ensemble import Ensemble
from server.errors import NotFound, NotReady, QuorumMissed
from server.fusion import STACKING, STRATEGIES, fuse
from server.plan import Options
from server.prediction import Prediction
from server.repository import Repository, load_version
from tests import faulty, tiny

N_MEMBERS = 3
Rows = NDArray[np.float32]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root)
    tiny.write_ensemble(root, version=2, default_strategy="vote")
    tiny.write_packed(root, default_strategy="weighted")
    return Repository.load(root, versions="all")


@pytest.fixture(scope="module")
def ensemble(repository: Repository) -> Ensemble:
    """m1, m2, m3: weights 3, 2, 1 for `weighted`; 1, 2, 3 for `log_linear`; temperatures 1, 1.5, 2."""
    return repository.get("tiny", 1)


@pytest.fixture
def engine(repository: Repository) -> Iterator[Engine]:
    engine = Engine(repository, default="tiny", limits=Limits(max_queue_size=1_000_000))
    yield engine
    asyncio.run(engine.close())


def infer(engine: Engine, ensemble: Ensemble, rows: Rows, **options: Any) -> Prediction:
    return asyncio.run(engine.infer(ensemble, rows, Options(**options)))


# Ensembles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((None, None), ("tiny", 2)),
        ((None, 1), ("tiny", 1)),
        (("tiny", 2), ("tiny", 2)),
        (("packed", None), ("packed", 1)),
    ],
)
def test_an_ensemble_is_the_default_one_and_its_highest_version_unless_named(
    engine: Engine, asked: tuple[str | None, int | None], found: tuple[str, int]
) -> None:
    manifest = engine.ensemble(*asked).manifest
    assert (manifest.name, manifest.version) == found


@pytest.mark.parametrize("asked", [("huge", None), ("", None), ("tiny", 3), ("tiny", 0), (None, 7)])
def test_an_ensemble_that_is_not_served_is_not_found(engine: Engine, asked: tuple[str | None, int | None]) -> None:
    with pytest.raises(NotFound):
        engine.ensemble(*asked)


# Predictions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != STACKING])
@pytest.mark.parametrize("name", ["tiny", "packed"])
@pytest.mark.parametrize("members", [None, ["m3", "m1"], ["m2"]])
def test_an_answer_is_the_fusion_of_the_members_answers(
    engine: Engine, strategy: str, name: str, members: list[str] | None
) -> None:
    x, ensemble = tiny.rows(9), engine.ensemble(name, 1)
    prediction = infer(engine, ensemble, x, strategy=strategy, members=members)
    chosen = [k for k in range(N_MEMBERS) if members is None or f"m{k + 1}" in members]
    answers = tiny.answers(x, N_MEMBERS)[chosen]
    fitted = {"weighted": np.array([3.0, 2, 1]), "log_linear": np.array([1.0, 2, 3])}.get(strategy, np.ones(3))
    temperatures = np.array([1, 1.5, 2], dtype=np.float32)
    expected = fuse(strategy, answers, weights=fitted[chosen], temperatures=temperatures[chosen])
    assert prediction.ensemble is ensemble
    assert_allclose(prediction.member_probabilities, answers, atol=1e-6)
    assert_allclose(prediction.fused.probabilities, expected.probabilities, atol=1e-5)
    assert_array_equal(prediction.fused.labels, expected.labels)


def test_a_requests_weights_count(engine: Engine, ensemble: Ensemble) -> None:
    x = tiny.rows(9)
    prediction = infer(engine, ensemble, x, strategy="weighted", weights={"m1": 0, "m2": 1, "m3": 3})
    expected = tiny.answers(x, N_MEMBERS)[1] / 4 + tiny.answers(x, N_MEMBERS)[2] * 3 / 4
    assert_allclose(prediction.fused.probabilities, expected, atol=1e-6)


def test_uncertainty_is_measured_if_asked_for(engine: Engine, ensemble: Ensemble) -> None:
    x = tiny.rows(9)
    assert infer(engine, ensemble, x).uncertainty is None
    prediction = infer(engine, ensemble, x, strategy="weighted", uncertainty=True)
    expected = uncertainty.measure(prediction.member_probabilities, prediction.plan.weights, prediction.fused)
    assert prediction.uncertainty is not None
    assert isinstance(prediction.uncertainty, uncertainty.Uncertainty)
    assert_allclose(prediction.uncertainty.entropy, expected.entropy)
    assert_allclose(prediction.uncertainty.mutual_information, expected.mutual_information)
    assert_allclose(prediction.uncertainty.disagreement, expected.disagreement)


def test_a_batch_of_one_row_is_answered(engine: Engine, ensemble: Ensemble) -> None:
    assert infer(engine, ensemble, tiny.rows(1)).fused.probabilities.shape == (1, 3)


# Many at once -------------------------------------------------------------------------------------------------------


def assert_own_answer(prediction: Prediction, x: Rows, options: Mapping[str, Any]) -> None:
    chosen = list(prediction.plan.members)
    answers = tiny.answers(x, N_MEMBERS)[chosen]
    assert_allclose(prediction.member_probabilities, answers, atol=1e-5)
    if options.get("strategy", "average") == "average":
        assert_allclose(prediction.fused.probabilities, answers.mean(axis=0), atol=1e-5)


def test_each_of_many_callers_gets_the_answer_to_its_own_rows(engine: Engine) -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"strategy": "vote"},
        {"members": ["m2"]},
        {"strategy": "weighted", "weights": {"m1": 1, "m3": 2}, "members": ["m1", "m3"]},
        {"uncertainty": True},
    ]
    requests = [(tiny.rows(1 + k % 7, seed=k), kinds[k % len(kinds)]) for k in range(100)]

    async def ask() -> list[Prediction]:
        ensembles = [engine.ensemble("tiny", 1), engine.ensemble("packed")]
        asked = (
            engine.infer(ensembles[k % 2], x, Options(**{"strategy": "average", **options}))
            for k, (x, options) in enumerate(requests)
        )
        return await asyncio.gather(*asked)

    for prediction, (x, options) in zip(asyncio.run(ask()), requests, strict=True):
        assert_own_answer(prediction, x, options)


def while_busy(engine: Engine, then: Callable[[Ensemble, "asyncio.Task[Prediction]"], Awaitable[None]]) -> None:
    """Run `then` with a request in flight that keeps the engine busy for a while."""

    async def run() -> None:
        ensemble = engine.ensemble("tiny", 1)
        busy = asyncio.create_task(engine.infer(ensemble, tiny.rows(200_000), Options(strategy="median")))
        await asyncio.sleep(0)
        await then(ensemble, busy)

    asyncio.run(run())


def test_a_caller_that_gives_up_while_it_waits_does_no_harm_to_the_others(engine: Engine) -> None:
    rows = [tiny.rows(2, seed=k) for k in range(5)]

    async def then(ensemble: Ensemble, busy: "asyncio.Task[Prediction]") -> None:
        tasks = [asyncio.create_task(engine.infer(ensemble, x, Options())) for x in rows]
        await asyncio.sleep(0)
        for k in (0, 2):
            tasks[k].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for k, answer in enumerate(answers):
            if k in (0, 2):
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert isinstance(answer, Prediction)
                assert_own_answer(answer, rows[k], {})
        assert (await busy).fused.labels.shape == (200_000,)

    while_busy(engine, then)


def test_a_caller_that_gives_up_while_its_rows_run_does_no_harm_to_the_others(engine: Engine) -> None:
    x = tiny.rows(2)

    async def then(ensemble: Ensemble, busy: "asyncio.Task[Prediction]") -> None:
        waiting = asyncio.create_task(engine.infer(ensemble, x, Options()))
        await asyncio.sleep(0)
        busy.cancel()
        assert_own_answer(await waiting, x, {})
        with pytest.raises(asyncio.CancelledError):
            await busy

    while_busy(engine, then)


def test_a_caller_that_runs_out_of_time_is_let_go(engine: Engine) -> None:
    async def then(ensemble: Ensemble, busy: "asyncio.Task[Prediction]") -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.infer(ensemble, tiny.rows(1), Options()), timeout=1e-6)
        assert_own_answer(await engine.infer(ensemble, tiny.rows(1), Options()), tiny.rows(1), {})
        await busy

    while_busy(engine, then)


def test_the_loop_goes_round_while_the_graphs_run(engine: Engine) -> None:
    async def then(ensemble: Ensemble, busy: "asyncio.Task[Prediction]") -> None:
        rounds = 0
        while not busy.done():
            rounds += 1
            await asyncio.sleep(0)
        assert rounds > 10

    while_busy(engine, then)


def test_a_member_that_fails_fails_its_caller_and_nobody_else(tmp_path: Path) -> None:
    broken = load_version(write_square_root(tmp_path))
    engine = Engine(Repository([broken]), default="tiny")
    positive, negative = np.ones((2, 4), dtype=np.float32), -np.ones((2, 4), dtype=np.float32)

    async def ask() -> list[Prediction | BaseException]:
        asked = [engine.infer(broken, x, Options()) for x in (positive, negative, positive)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await engine.close()
        return answers

    one, two, three = asyncio.run(ask())
    assert isinstance(one, Prediction)
    assert isinstance(three, Prediction)
    assert isinstance(two, QuorumMissed)
    assert two.message == "expected answers of at least 1 of 1 members; got 0 (m1: invalid)"


def write_square_root(root: Path) -> Path:
    """An ensemble of one member that answers a third to each class, and not a number to rows below zero."""
    graph = tiny.graph(
        [
            helper.make_node("Slice", ["X", "from", "to", "axis"], ["three"]),
            helper.make_node("Sqrt", ["three"], ["roots"]),
            helper.make_node("Softmax", ["roots"], ["probabilities"], axis=1),
        ],
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        {"from": np.array([0]), "to": np.array([3]), "axis": np.array([1])},
    )
    thirds = np.full((1, 2, 3), 1 / 3, dtype=np.float32)
    files = {"m1.onnx": graph, "vectors.npz": tiny.vectors(np.ones((2, 4), dtype=np.float32), thirds)}
    return tiny.write_version(root, tiny.manifest(1), files)


# What is served ------------------------------------------------------------------------------------------------------


def test_what_was_asked_before_a_change_is_answered_by_what_was_asked(tmp_path: Path) -> None:
    first, second = (load_version(tiny.write_ensemble(tmp_path, version=version)) for version in (1, 2))
    x = tiny.rows(2)

    async def change() -> list[Prediction]:
        engine = Engine(Repository([first]), default="tiny")
        asked = engine.ensemble()
        waiting = asyncio.create_task(engine.infer(asked, x, Options()))
        await asyncio.sleep(0)
        engine.serve(await asyncio.to_thread(engine.prepare, Repository([second])))
        answers = [
            await waiting,
            await engine.infer(asked, x, Options()),
            await engine.infer(engine.ensemble(), x, Options()),
        ]
        await engine.close()
        return answers

    answers = asyncio.run(change())
    assert [answer.ensemble.manifest.version for answer in answers] == [1, 1, 2]
    for answer in answers:
        assert_own_answer(answer, x, {})


def test_what_is_served_no_more_is_gone_with_its_last_request(tmp_path: Path) -> None:
    for write in (tiny.write_ensemble, tiny.write_packed):
        write(tmp_path, name="tiny", version=1 if write is tiny.write_ensemble else 2)
    engine = Engine(Repository([load_version(tmp_path / "tiny" / "1")]), default="tiny")
    for version in (2, 1):
        served = engine.ensemble()
        infer(engine, served, tiny.rows(2))
        infer(engine, served, tiny.rows(2), members=["m1"], uncertainty=True)
        engine.serve(engine.prepare(Repository([load_version(tmp_path / "tiny" / str(version))])))
        infer(engine, served, tiny.rows(2), strategy="vote")
        sessions = [weakref.ref(graph._session) for graph in served._graphs]
        del served
        gc.collect()  # runs and those who wait for them are in cycles
        assert [session() for session in sessions] == [None] * len(sessions)
    asyncio.run(engine.close())


def test_nothing_at_all_may_be_served(ensemble: Ensemble) -> None:
    engine = Engine(Repository([ensemble]), default="tiny")
    engine.serve(engine.prepare(Repository(())))
    with pytest.raises(NotFound, match=r"^no ensemble 'tiny'; there are: none$"):
        engine.ensemble()
    engine.serve(engine.prepare(Repository([ensemble])))
    assert_own_answer(infer(engine, engine.ensemble(), x := tiny.rows(3)), x, {})
    asyncio.run(engine.close())


def test_a_member_that_was_left_alone_is_counted_no_more_with_its_ensemble(tmp_path: Path) -> None:
    broken = load_version(write_square_root(tmp_path))
    engine = Engine(Repository([broken]), default="tiny", limits=Limits(breaker_failures=1))
    faulty.blame_members(engine)
    with pytest.raises(QuorumMissed):
        infer(engine, broken, -np.ones((2, 4), dtype=np.float32))

    def metric(name: str, **more: str) -> float | None:
        return telemetry.REGISTRY.get_sample_value(name, {"ensemble": "tiny", "version": "1", **more})

    assert metric("committee_open_circuits", member="m1") == 1
    assert metric("committee_model_ready") == 1
    engine.serve(engine.prepare(Repository(())))
    assert metric("committee_open_circuits", member="m1") == 0
    assert metric("committee_model_ready") == 0
    asyncio.run(engine.close())


# Closing ------------------------------------------------------------------------------------------------------------


def test_what_was_taken_before_the_engine_closes_is_answered(engine: Engine) -> None:
    x = tiny.rows(2)

    async def then(ensemble: Ensemble, busy: "asyncio.Task[Prediction]") -> None:
        waiting = asyncio.create_task(engine.infer(ensemble, x, Options()))
        await asyncio.sleep(0)
        await engine.close()
        assert (await busy).fused.labels.shape == (200_000,)
        assert_own_answer(await waiting, x, {})

    while_busy(engine, then)


def test_a_closed_engine_says_that_it_is_not_ready(engine: Engine, ensemble: Ensemble) -> None:
    asyncio.run(engine.close())
    with pytest.raises(NotReady):
        infer(engine, ensemble, tiny.rows(1))
    asyncio.run(engine.close())


def test_a_closed_engine_leaves_no_thread_behind(repository: Repository, ensemble: Ensemble) -> None:
    before = set(threading.enumerate())
    engine = Engine(repository, default="tiny")
    infer(engine, ensemble, tiny.rows(1))
    asyncio.run(engine.close())
    assert set(threading.enumerate()) <= before
