"""Options against ensembles of every kind: what they come to, and in which words they are refused."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from server.ensemble import Ensemble
from server.errors import InvalidInput
from server.fusion import REGRESSION, STACKING, STRATEGIES
from server.plan import Options, Plan, Stage, make_plan
from server.repository import Repository, load_version
from tests import tiny

N_MEMBERS = 3


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = tmp_path_factory.mktemp("models")
    tiny.write_ensemble(root)
    tiny.write_ensemble(root, version=2, default_strategy="vote")
    tiny.write_packed(root, default_strategy="weighted")
    tiny.write_stacked(root)
    tiny.write_cascade(root)
    tiny.write_cascade(root, version=2, n_members=5, cascade=cascade_of_five(), default_strategy="average")
    tiny.write_regression(root)
    return Repository.load(root, versions="all")


def cascade_of_five() -> dict[str, Any]:
    """Three stages, of which the first is not of the first members; `m4` is in none."""
    stages = tiny.cascade(["m3"], ["m1", "m5"], ["m2"])["stages"]
    for stage, threshold in zip(stages, (0.9, 0.7, 0.5), strict=True):
        stage["threshold"] = threshold
    return tiny.cascade(stages=stages, strategy="weighted", measure="agreement")


@pytest.fixture(scope="module")
def ensemble(repository: Repository) -> Ensemble:
    """m1, m2, m3: weights 3, 2, 1 for `weighted`; 1, 2, 3 for `log_linear`; temperatures 1, 1.5, 2."""
    return repository.get("tiny", 1)


@pytest.fixture(scope="module")
def stacked(repository: Repository) -> Ensemble:
    return repository.get("stacked")


@pytest.fixture(scope="module")
def cascading(repository: Repository) -> Ensemble:
    """m1, then m2 and m3, until an average is sure by 0.8."""
    return repository.get("cascade", 1)


@pytest.fixture(scope="module")
def five(repository: Repository) -> Ensemble:
    """m3, then m1 and m5, then m2; weights 5, 4, 3, 2, 1 for `weighted`."""
    return repository.get("cascade", 2)


@pytest.fixture(scope="module")
def regression(repository: Repository) -> Ensemble:
    return repository.get("regression")


def plan_of(ensemble: Ensemble, **options: Any) -> Plan:
    return make_plan(ensemble, Options(**options))


def refusal(ensemble: Ensemble, **options: Any) -> str:
    """The message, proved to be one line."""
    with pytest.raises(InvalidInput) as caught:
        plan_of(ensemble, **options)
    assert caught.value.message.isprintable()
    return caught.value.message


# Strategies and weights ---------------------------------------------------------------------------------------------


def test_a_request_that_says_nothing_gets_the_manifests_default(repository: Repository) -> None:
    for name, version, strategy in (("tiny", 1, "average"), ("tiny", 2, "vote"), ("packed", 1, "weighted")):
        plan = make_plan(repository.get(name, version), Options())
        assert (plan.strategy, plan.members) == (strategy, (0, 1, 2))


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"strategy": "average"}, [1 / 3, 1 / 3, 1 / 3]),
        ({"strategy": "median"}, [1 / 3, 1 / 3, 1 / 3]),
        ({"strategy": "max", "members": ["m3"]}, [1]),
        ({"strategy": "vote"}, [1 / 3, 1 / 3, 1 / 3]),
        ({"strategy": "vote", "weights": {"m1": 2, "m2": 1, "m3": 1}}, [0.5, 0.25, 0.25]),
        ({"strategy": "weighted"}, [3 / 6, 2 / 6, 1 / 6]),
        ({"strategy": "log_linear"}, [1 / 6, 2 / 6, 3 / 6]),
        # A subset's weights are made to sum to 1 again.
        ({"strategy": "average", "members": ["m1", "m3"]}, [0.5, 0.5]),
        ({"strategy": "weighted", "members": ["m1", "m3"]}, [0.75, 0.25]),
        ({"strategy": "log_linear", "members": ["m1", "m3"]}, [0.25, 0.75]),
        # A request's own weights replace the fitted ones, by name and at any scale.
        ({"strategy": "weighted", "weights": {"m3": 2, "m1": 0, "m2": 6}}, [0, 0.75, 0.25]),
        ({"strategy": "weighted", "weights": {"m1": 5e-324, "m2": 5e-324, "m3": 0}}, [0.5, 0.5, 0]),
        ({"strategy": "weighted", "weights": {"m1": 1.7e308, "m2": 1.7e308, "m3": 0}}, [0.5, 0.5, 0]),
        ({"strategy": "weighted", "members": ["m2"], "weights": {"m2": 7}}, [1]),
    ],
)
def test_the_effective_weights_sum_to_one_over_the_members_that_run(
    ensemble: Ensemble, options: dict[str, Any], weights: list[float]
) -> None:
    plan = make_plan(ensemble, Options(**options))
    assert plan.weights.dtype == np.float32
    assert_allclose(plan.weights, weights, atol=1e-6)


@pytest.mark.parametrize("members", [["m1", "m3"], ["m3", "m1"], ("m3", "m1")])
def test_members_run_in_the_manifests_order(ensemble: Ensemble, members: Sequence[str]) -> None:
    plan = make_plan(ensemble, Options(members=members, strategy="weighted"))
    assert plan.members == (0, 2)
    assert_allclose(plan.weights, [0.75, 0.25])


def test_a_subset_whose_fitted_weights_are_all_zero_weighs_alike(tmp_path: Path) -> None:
    members = tiny.manifest(N_MEMBERS)["members"]
    for member, weight in zip(members, (1.0, 0.0, 0.0), strict=True):
        member["weights"] = {"weighted": weight}
    ensemble = load_version(tiny.write_ensemble(tmp_path, members=members))
    assert_array_equal(make_plan(ensemble, Options(strategy="weighted")).weights, [1, 0, 0])
    assert_array_equal(make_plan(ensemble, Options(strategy="weighted", members=["m2", "m3"])).weights, [0.5, 0.5])


@pytest.mark.parametrize(("large", "small"), [(1.7e308, 1.7e308), (1e39, 1e39), (5e-324, 5e-324), (1e-60, 1e-60)])
def test_fitted_weights_of_any_size_keep_their_proportions(tmp_path: Path, large: float, small: float) -> None:
    members = tiny.manifest(2)["members"]
    for member, weight in zip(members, (large, small), strict=True):
        member["weights"] = {"weighted": weight}
    ensemble = load_version(tiny.write_ensemble(tmp_path, n_members=2, members=members))
    assert_array_equal(make_plan(ensemble, Options(strategy="weighted")).weights, [0.5, 0.5])


ALL_ONE = {"m1": 1.0, "m2": 1.0, "m3": 1.0}
REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"strategy": "oracle"}, "strategy: expected one of average, weighted, vote, log_linear, "),
    ({"strategy": "oracle"}, "; got 'oracle'"),
    ({"strategy": ""}, "; got ''"),
    ({"strategy": "Average"}, "; got 'Average'"),
    ({"members": []}, "members: expected at least one of m1, m2, m3; got none"),
    ({"members": ["m4"]}, "members: expected some of m1, m2, m3; got 'm4'"),
    ({"members": ["m1", ""]}, "members: expected some of m1, m2, m3; got ''"),
    ({"members": ["m1", "m2", "m1"]}, "members: expected each member once"),
    ({"strategy": "average", "weights": ALL_ONE}, "weights: strategy 'average' takes none; those that do: weighted, "),
    ({"strategy": "median", "weights": ALL_ONE}, "weights: strategy 'median' takes none"),
    ({"strategy": "max", "weights": {}}, "weights: strategy 'max' takes none"),
    # The default strategy is average here.
    ({"weights": ALL_ONE}, "weights: strategy 'average' takes none"),
    ({"strategy": "weighted", "weights": {}}, "expected a weight for each of m1, m2, m3; got none for 'm1'"),
    ({"strategy": "weighted", "weights": {"m1": 1, "m3": 1}}, "a weight for each of m1, m2, m3; got none for 'm2'"),
    ({"strategy": "weighted", "weights": {**ALL_ONE, "m4": 1}}, "a weight for each of m1, m2, m3; got one for 'm4'"),
    (
        {"strategy": "weighted", "members": ["m1", "m2"], "weights": ALL_ONE},
        "weights: expected a weight for each of m1, m2; got one for 'm3'",
    ),
    ({"strategy": "vote", "weights": {**ALL_ONE, "m2": -1}}, "a finite number that is not negative for 'm2'; got -1"),
    ({"strategy": "vote", "weights": {**ALL_ONE, "m2": -1e-9}}, "not negative for 'm2'; got -1e-09"),
    ({"strategy": "vote", "weights": {**ALL_ONE, "m2": float("nan")}}, "not negative for 'm2'; got nan"),
    ({"strategy": "vote", "weights": {**ALL_ONE, "m2": float("inf")}}, "not negative for 'm2'; got inf"),
    ({"strategy": "vote", "weights": {**ALL_ONE, "m2": 10**400}}, "not negative for 'm2'; got 1000"),
    ({"strategy": "vote", "weights": dict.fromkeys(ALL_ONE, 0)}, "weights: expected at least one above zero"),
    ({"strategy": "vote", "weights": dict.fromkeys(ALL_ONE, -0.0)}, "weights: expected at least one above zero"),
]


@pytest.mark.parametrize(("options", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_options_that_cannot_be_served_are_refused_in_words(
    ensemble: Ensemble, options: dict[str, Any], message: str
) -> None:
    assert message in refusal(ensemble, **options)


def test_options_do_not_change_once_they_are_made() -> None:
    with pytest.raises(FrozenInstanceError):
        Options().strategy = "vote"  # type: ignore[misc]


# Members ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "chosen"),
    [
        (None, (0, 1, 2)),
        (["m2"], (1,)),
        (["-m2"], (0, 2)),
        (["-m3", "-m1"], (1,)),
        (("-m1",), (1, 2)),
    ],
)
def test_members_are_named_or_each_after_a_dash_left_out(
    ensemble: Ensemble, members: Sequence[str] | None, chosen: tuple[int, ...]
) -> None:
    plan = plan_of(ensemble, members=members)
    assert plan.members == chosen
    assert plan.stages == (Stage(chosen, math.inf),)
    assert_array_equal(plan.weights, np.full(len(chosen), 1 / len(chosen), dtype=np.float32))


def test_leaving_members_out_is_naming_the_others(ensemble: Ensemble) -> None:
    out, named = (plan_of(ensemble, strategy="weighted", members=members) for members in (["-m2"], ["m1", "m3"]))
    assert (out.members, out.stages) == (named.members, named.stages)
    assert_array_equal(out.weights, named.weights)


MIXED = "members: expected names of those that are to run, or each after a -, of those that are not"
ALL_OUT = "members: expected at least one of m1, m2, m3 to be left; got all of them after a -"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["m1", "-m2"], MIXED),
        (["-m1", "m1"], MIXED),
        (["-m1", "m4"], MIXED),
        (["-m1", ""], MIXED),
        (["-m1", "-m2", "-m3"], ALL_OUT),
        (["-m4"], "members: expected some of m1, m2, m3; got 'm4'"),
        (["-"], "members: expected some of m1, m2, m3; got ''"),
        (["--m1"], "members: expected some of m1, m2, m3; got '-m1'"),
        (["-m1", "-m1"], "members: expected each member once; got one twice"),
        (["m\n1"], "members: expected some of m1, m2, m3; got 'm\\n1'"),
    ],
)
def test_members_that_cannot_be_told_are_refused(ensemble: Ensemble, members: list[str], message: str) -> None:
    assert refusal(ensemble, members=members) == message


@pytest.mark.parametrize(
    ("members", "weights", "expected"),
    [
        (["m1", "m3"], {"m1": 1, "m3": 3}, [0.25, 0.75]),
        (["-m2"], {"m3": 3, "m1": 1}, [0.25, 0.75]),
        (["-m1"], {"m2": 0, "m3": 9}, [0, 1]),
    ],
)
def test_a_requests_weights_are_of_the_members_that_run(
    ensemble: Ensemble, members: list[str], weights: Mapping[str, float], expected: list[float]
) -> None:
    assert_allclose(plan_of(ensemble, strategy="vote", members=members, weights=weights).weights, expected)
    message = "weights: expected a weight for each of"
    for others in ({**weights, "m1": 1, "m2": 1, "m3": 1}, dict(list(weights.items())[:1])):
        assert refusal(ensemble, strategy="vote", members=members, weights=others).startswith(message)


@pytest.mark.parametrize(
    ("members", "expected"),
    [((0, 1, 2), [3 / 6, 2 / 6, 1 / 6]), ((1,), [1]), ((0, 2), [0.75, 0.25]), ((1, 2), [2 / 3, 1 / 3])],
)
def test_weights_of_those_that_take_part_sum_to_one_again(
    ensemble: Ensemble, members: tuple[int, ...], expected: list[float]
) -> None:
    weights = plan_of(ensemble, strategy="weighted").weights_of(members)
    assert weights.dtype == np.float32
    assert_allclose(weights, expected, atol=1e-6)


def test_a_request_whose_only_weighty_members_are_missing_weighs_the_others_alike(ensemble: Ensemble) -> None:
    plan = plan_of(ensemble, strategy="weighted", weights={"m1": 1, "m2": 0, "m3": 0})
    assert_array_equal(plan.weights, [1, 0, 0])
    assert_array_equal(plan.weights_of((1, 2)), [0.5, 0.5])


# Which strategies there are -----------------------------------------------------------------------------------------

POOLS = ", ".join(name for name in STRATEGIES if name != STACKING)


@pytest.mark.parametrize(
    ("name", "strategy", "message"),
    [
        ("tiny", "oracle", f"strategy: expected one of {POOLS}; got 'oracle'"),
        (
            "tiny",
            "stacking",
            f"strategy: expected one of {POOLS}; got 'stacking', for which this ensemble has no final_estimator",
        ),
        (
            "tiny",
            "cascade",
            f"strategy: expected one of {POOLS}; got 'cascade', for which this ensemble has no stages",
        ),
        ("tiny", "mean", f"strategy: expected one of {POOLS}; got 'mean', which is none of a classification"),
        (
            "stacked",
            "cascade",
            f"strategy: expected one of {POOLS}, stacking; got 'cascade', for which this ensemble has no stages",
        ),
        (
            "cascade",
            "stacking",
            f"strategy: expected one of {POOLS}, cascade; got 'stacking', for which this ensemble has no "
            "final_estimator",
        ),
        *(
            (
                "regression",
                strategy,
                f"strategy: expected one of mean, weighted, median; got {strategy!r}, which is none of a regression",
            )
            for strategy in ("vote", "average", "log_linear", "max", "stacking", "cascade")
        ),
        ("regression", "oracle", "strategy: expected one of mean, weighted, median; got 'oracle'"),
    ],
)
def test_a_strategy_that_an_ensemble_does_not_have_is_refused_with_the_reason(
    repository: Repository, name: str, strategy: str, message: str
) -> None:
    assert refusal(repository.get(name), strategy=strategy) == message


# Stacking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [None, ["m3", "m1", "m2"]])
def test_stacking_runs_every_member(stacked: Ensemble, members: list[str] | None) -> None:
    plan = plan_of(stacked, strategy="stacking", members=members)
    assert (plan.strategy, plan.rule, plan.members) == ("stacking", "stacking", (0, 1, 2))
    assert plan.stages == (Stage((0, 1, 2), math.inf),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"members": ["m1", "m2"]},
            "members: expected all with strategy 'stacking', whose final estimator reads every one; got some",
        ),
        (
            {"members": ["-m3"]},
            "members: expected all with strategy 'stacking', whose final estimator reads every one; got some",
        ),
        ({"weights": ALL_ONE}, "weights: strategy 'stacking' takes none; those that do: weighted, vote, log_linear"),
        (
            {"contributions": True},
            "detail: expected no contributions with strategy 'stacking': its final estimator can leave none out",
        ),
    ],
)
def test_what_stacking_cannot_do_is_refused(stacked: Ensemble, options: dict[str, Any], message: str) -> None:
    assert refusal(stacked, strategy="stacking", **options) == message


def test_the_other_strategies_of_an_ensemble_with_a_final_estimator_take_what_they_take(stacked: Ensemble) -> None:
    plan = plan_of(stacked, strategy="weighted", members=["-m3"], weights={"m1": 1, "m2": 1}, contributions=True)
    assert_array_equal(plan.weights, [0.5, 0.5])
    assert plan.contributions


# Cascades -----------------------------------------------------------------------------------------------------------


def test_a_cascade_has_the_stages_of_the_manifest_and_ends_with_the_last(cascading: Ensemble, five: Ensemble) -> None:
    plan = plan_of(cascading)
    assert (plan.strategy, plan.rule, plan.measure, plan.members) == ("cascade", "average", "confidence", (0, 1, 2))
    assert plan.stages == (Stage((0,), 0.8), Stage((1, 2), math.inf))
    plan = plan_of(five, strategy="cascade")
    assert (plan.strategy, plan.rule, plan.measure, plan.members) == ("cascade", "weighted", "agreement", (0, 1, 2, 4))
    assert plan.stages == (Stage((2,), 0.9), Stage((0, 4), 0.7), Stage((1,), math.inf))
    assert_allclose(plan.weights, np.array([5, 4, 3, 1]) / 13, atol=1e-6)


@pytest.mark.parametrize(
    ("members", "stages"),
    [
        (["m1", "m2", "m3"], [((2,), 0.9), ((0,), 0.7), ((1,), math.inf)]),
        (["-m3"], [((0, 4), 0.7), ((1,), math.inf)]),
        (["m1", "m5", "m3"], [((2,), 0.9), ((0, 4), math.inf)]),
        (["m2", "m4"], [((1,), math.inf)]),
        (["m5"], [((4,), math.inf)]),
    ],
)
def test_a_cascade_of_some_members_has_what_is_left_of_its_stages(
    five: Ensemble, members: list[str], stages: list[tuple[tuple[int, ...], float]]
) -> None:
    plan = plan_of(five, strategy="cascade", members=members)
    assert plan.stages == tuple(Stage(*stage) for stage in stages)
    assert plan.members == tuple(sorted(member for chosen, _ in stages for member in chosen))


def test_a_cascade_of_none_of_its_members_is_refused(five: Ensemble) -> None:
    assert refusal(five, strategy="cascade", members=["m4"]) == (
        "members: expected at least one of the cascade's, m3, m1, m5, m2; got none of them"
    )


def test_a_requests_threshold_is_that_of_every_stage_but_the_last(five: Ensemble) -> None:
    plan = plan_of(five, strategy="cascade", cascade_threshold=0.25)
    assert plan.stages == (Stage((2,), 0.25), Stage((0, 4), 0.25), Stage((1,), math.inf))


def test_a_threshold_of_zero_is_one(five: Ensemble) -> None:
    assert [stage.threshold for stage in plan_of(five, strategy="cascade", cascade_threshold=0.0).stages] == [
        0,
        0,
        math.inf,
    ]


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize(("name", "strategy"), [("cascade", "average"), ("tiny", "vote"), ("regression", "mean")])
def test_a_threshold_without_a_cascade_is_refused(
    repository: Repository, name: str, strategy: str, threshold: float
) -> None:
    assert refusal(repository.get(name), strategy=strategy, cascade_threshold=threshold) == (
        f"cascade_threshold: expected none with strategy {strategy!r}; it is for 'cascade'"
    )


def test_a_cascade_takes_the_weights_that_its_strategy_takes(five: Ensemble, cascading: Ensemble) -> None:
    weights = {"m1": 1, "m2": 0, "m3": 2, "m5": 1}
    assert_allclose(plan_of(five, strategy="cascade", weights=weights).weights, [0.25, 0, 0.5, 0.25])
    assert refusal(five, strategy="cascade", weights={**weights, "m4": 1}) == (
        "weights: expected a weight for each of m1, m2, m3, m5; got one for 'm4'"
    )
    assert refusal(cascading, strategy="cascade", weights=ALL_ONE) == (
        "weights: strategy 'cascade' takes none; those that do: weighted, vote, log_linear"
    )


# How many must answer -----------------------------------------------------------------------------------------------


def test_failure_is_borne_as_the_manifest_says_unless_the_request_does(tmp_path: Path, ensemble: Ensemble) -> None:
    plan = plan_of(ensemble)
    assert (plan.quorum, plan.on_failure) == (None, "degrade")
    plan = plan_of(ensemble, quorum=2, on_failure="fail")
    assert (plan.quorum, plan.on_failure) == (2, "fail")
    strict = load_version(tiny.write_ensemble(tmp_path, quorum=3, on_failure="fail"))
    plan = plan_of(strict)
    assert (plan.quorum, plan.on_failure) == (3, "fail")
    plan = plan_of(strict, quorum=1, on_failure="degrade")
    assert (plan.quorum, plan.on_failure) == (1, "degrade")


@pytest.mark.parametrize(("n_asked", "least"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (256, 129)])
def test_without_a_quorum_a_majority_must_answer(ensemble: Ensemble, n_asked: int, least: int) -> None:
    assert plan_of(ensemble).least(n_asked) == least


@pytest.mark.parametrize(("quorum", "n_asked", "least"), [(1, 3, 1), (2, 3, 2), (3, 3, 3), (4, 3, 3), (256, 1, 1)])
def test_with_a_quorum_so_many_must_or_all_that_are_asked(
    ensemble: Ensemble, cascading: Ensemble, quorum: int, n_asked: int, least: int
) -> None:
    assert plan_of(ensemble, quorum=quorum).least(n_asked) == least
    assert plan_of(cascading, quorum=quorum).least(n_asked) == least


def test_of_a_cascade_one_member_is_enough(cascading: Ensemble, five: Ensemble) -> None:
    assert [plan_of(cascading).least(n_asked) for n_asked in (1, 2, 3)] == [1, 1, 1]
    left = plan_of(five, strategy="cascade", members=["m1", "m5"])
    assert [left.least(n_asked) for n_asked in (1, 2)] == [1, 2]


# Regressions --------------------------------------------------------------------------------------------------------


def test_a_regression_has_strategies_of_its_own(regression: Ensemble) -> None:
    assert regression.strategies == list(REGRESSION)
    plan = plan_of(regression)
    assert (plan.strategy, plan.rule, plan.members) == ("mean", "mean", (0, 1, 2))
    assert_allclose(plan_of(regression, strategy="weighted").weights, [3 / 6, 2 / 6, 1 / 6], atol=1e-6)
    weights = {"m1": 1, "m2": 1, "m3": 2}
    assert_array_equal(plan_of(regression, strategy="weighted", weights=weights).weights, [0.25, 0.25, 0.5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"abstain_below": 0.5}, "abstain_below: expected none of a regression, whose answers have no confidence"),
        ({"abstain_below": 0.0}, "abstain_below: expected none of a regression, whose answers have no confidence"),
        ({"weights": ALL_ONE}, "weights: strategy 'mean' takes none; those that do: weighted"),
        (
            {"strategy": "median", "weights": ALL_ONE},
            "weights: strategy 'median' takes none; those that do: weighted",
        ),
        ({"members": ["-m1", "-m2", "-m3"]}, ALL_OUT),
    ],
)
def test_what_a_regression_cannot_do_is_refused(regression: Ensemble, options: dict[str, Any], message: str) -> None:
    assert refusal(regression, **options) == message


# What is handed on --------------------------------------------------------------------------------------------------


def test_what_is_to_be_told_is_handed_on(ensemble: Ensemble) -> None:
    plan = plan_of(ensemble)
    assert (plan.abstain_below, plan.uncertainty, plan.contributions) == (None, False, False)
    plan = plan_of(ensemble, abstain_below=0.25, uncertainty=True, contributions=True)
    assert (plan.abstain_below, plan.uncertainty, plan.contributions) == (0.25, True, True)


def test_a_plan_does_not_change(ensemble: Ensemble) -> None:
    with pytest.raises(FrozenInstanceError):
        plan_of(ensemble).quorum = 1  # type: ignore[misc]
