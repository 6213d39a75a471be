"""What the page says in words, of numbers that are made for it."""

from typing import Any

from export.page import answers, candidates, choosing, comparisons, mistakes, pruning, searches, summary, tuning
from export.page.blocks import Section, Words
from export.page.svg import matplotlib_style


def _told(sections: list[Section]) -> str:
    everything = [*sections, *(part for section in sections for part in section.parts)]
    return " ".join(block.text for section in everything for block in section.blocks if isinstance(block, Words))


def _candidate(name: str, cost: float, accuracy: float, log_loss: float, **more: Any) -> dict[str, Any]:
    about = {
        "kind": "keras_cnn",
        "made_of": [],
        "teachers": [],
        "bytes": 1000,
        "parameters": 10,
        "ece": 0.01,
        "record": {},
    }
    return {"name": name, "cost_us": cost, "accuracy": accuracy, "log_loss": log_loss, **about, **more}


def test_a_student_is_compared_with_its_teachers() -> None:
    teachers = [_candidate("a", 30.0, 0.90, 0.3), _candidate("b", 10.0, 0.92, 0.2)]
    student = _candidate("s", 5.0, 0.91, 0.25, teachers=["a", "b"], made_of=["a", "b"])
    with matplotlib_style():
        told = _told(candidates.sections({"candidates": [*teachers, student]}))
        alone = _told(candidates.sections({"candidates": [teachers[1], student | {"teachers": ["gone"]}]}))
    assert "it costs 5.00 µs a row where they cost 40.0 µs together" in told
    assert "Against b, the best of them, its accuracy is 1.00 points lower and its log-loss 0.0500 higher" in told
    assert "s learned from gone." in alone


def test_the_cheapest_candidate_may_be_the_best() -> None:
    with matplotlib_style():
        told = _told(
            candidates.sections({"candidates": [_candidate("a", 1.0, 0.9, 0.2), _candidate("b", 2.0, 0.8, 0.4)]})
        )
    assert "Best alone: a" in told
    assert "the cheapest, too" in told


def test_pruning_is_told_against_what_it_was_and_against_the_control() -> None:
    first = {
        "round": 0,
        "widths": [32],
        "parameters": 100,
        "cost_us": 10.0,
        "accuracy": 0.9,
        "log_loss": 0.3,
        "kept": False,
    }
    second = first | {"round": 1, "parameters": 60, "cost_us": 5.0, "accuracy": 0.89, "kept": True}
    control = [{"round": 1, "accuracy": 0.92, "log_loss": 0.3}]
    record = {"of": "a", "rounds": [first, second]}
    with matplotlib_style():
        told = _told(pruning.pruned([{"name": "p", "record": record | {"control": control}}]))
        without = _told(pruning.pruned([{"name": "p", "record": record}]))
        kept = _told(
            pruning.pruned(
                [{"name": "p", "record": {"of": "a", "rounds": [first | {"kept": True}, second | {"kept": False}]}}]
            )
        )
    assert "costs 50% less, with 40% of the parameters gone" in told
    assert "1.00 points lower; against the control, which trained as long, 3.00 points lower" in told
    assert "control, which" not in without
    assert "stayed as it was" in kept
    assert pruning.pruned([{"name": "x", "record": {"rounds": 7}}]) == []


def test_a_difference_that_may_be_chance_is_called_that() -> None:
    gain = {
        "accuracy": {"member": "a", "value": 0.001, "low": -0.001, "high": 0.003},
        "log_loss": {"member": "a", "value": -0.02, "low": -0.03, "high": -0.01},
    }
    scores = {metric: {"value": 0.5, "low": 0.4, "high": 0.6} for metric in ("accuracy", "log_loss")}
    ensemble = {"name": "e", "version": "1", "members": {"a": 0.6, "b": 0.4}, "default_strategy": "average",
                "test": {"average": scores}, "over_best_member": {"average": gain}}  # fmt: skip
    told = _told(summary.sections({"ensembles": [ensemble]}))
    assert "+0.10 points (−0.10 to +0.30) – perhaps by chance" in told
    assert told.endswith("−0.0200 (−0.0300 to −0.0100).")
    assert "e 1 is a alone" in _told(summary.sections({"ensembles": [ensemble | {"members": {"a": 1.0}}]}))
    assert "by average." in _told(summary.sections({"ensembles": [ensemble | {"over_best_member": {}}]}))


def test_the_cheapest_that_is_nearly_as_good_is_named() -> None:
    def subset(members: list[str], cost: float, accuracy: float) -> dict[str, Any]:
        return {
            "members": members,
            "strategy": "average",
            "cost_us": cost,
            "accuracy": accuracy,
            "log_loss": 1 - accuracy,
        }

    several = [subset(["a"], 1.0, 0.8), subset(["b"], 5.0, 0.899), subset(["a", "b"], 10.0, 0.9)]
    with matplotlib_style():
        told = _told(answers.sections({"subsets": several}))
        far = _told(answers.sections({"subsets": [several[0], several[2]]}))
        many = answers.sections({"subsets": [subset(["a"], k, 0.5 + k / 100) for k in range(1, 40)]})
    assert "b by average costs 50% less and comes within 0.10 points of it" in told
    assert "None that is cheaper comes within 0.25 points" in far
    assert len(many[0].blocks[-1].rows) == 12  # type: ignore[union-attr]


def test_selection_tells_what_of_the_budget_is_used_and_who_differ() -> None:
    selection = {
        "limits": {"max_cost_us": 10.0, "max_size_mb": None, "max_members": 4},
        "candidates": ["a", "b", "c"],
        "members": {"a": 0.75, "b": 0.25},
        "cost_us": 8.0,
        "log_loss": 0.2,
        "path": [{"added": "a", "log_loss": 0.3}, {"added": "b", "log_loss": 0.2}],
        "disagreement": {"names": ["a", "b", "c"], "matrix": [[0, 0.1, 0.3], [0.1, 0, 0.2], [0.3, 0.2, 0]]},
    }
    with matplotlib_style():
        told = _told(choosing.sections({"selection": selection}))
        least = _told(choosing.sections({"selection": {"members": {"a": 1.0}}}))
    assert "Budget used: 8.00 of 10.0 µs a row (80%) and 2 of 4 members." in told
    assert "Most apart: a and c, on 30.0% of the rows. Most alike: a and b, on 10.0%." in told
    assert "1 member of 0 candidates; the heaviest is a with 100% of the weight." in least
    assert choosing.sections({}) == []


def test_a_search_without_a_front_is_still_told() -> None:
    trial = {
        "number": 0,
        "state": "pruned",
        "log_loss": None,
        "accuracy": None,
        "cost_us": 3.0,
        "bytes": None,
        "front": False,
    }
    record = {
        "name": "s",
        "space": "deeper",
        "seconds": 5.0,
        "trials": [trial | {"curve": [0.9]}, trial | {"curve": []}],
    }
    with matplotlib_style():
        told = _told(searches.sections([record, {"name": "empty", "trials": []}]))
        failed = searches.sections([record | {"trials": [trial | {"state": "failed", "cost_us": None}]}])
    assert told.startswith("2 trials of “deeper” networks in 5 s: 2 pruned. 1 of the pruned never trained")
    assert len(failed) == 1


def test_activations_and_variants_conclude_with_the_best() -> None:
    summary = [
        {"activation": "mish", "accuracy": 0.92, "log_loss": 0.2, "cost_us": 10.0},
        {"activation": "relu", "accuracy": 0.91, "log_loss": 0.25, "cost_us": 7.0},
    ]
    variant = {"accuracy": 0.9, "train_log_loss": 0.1, "near_zero": 0.0}
    variants = [
        variant | {"name": "none", "log_loss": 0.5, "gap": 0.4},
        variant | {"name": "l1", "log_loss": 0.3, "gap": 0.2, "near_zero": 0.6, "accuracy": 0.89},
    ]
    with matplotlib_style():
        told = _told(comparisons.activations({"summary": summary}))
        cheap = _told(comparisons.activations({"summary": [summary[0] | {"cost_us": 1.0}, summary[1]]}))
        unpriced = _told(comparisons.activations({"summary": [row | {"cost_us": None} for row in summary]}))
        held = _told(comparisons.regularisation({"variants": variants}))
    assert "mish, 0.2000 at accuracy 0.9200. relu, the cheapest of the better half, costs 30% less" in told
    assert "None of the better half costs less" in cheap
    assert "costs" not in unpriced
    assert "widest for none (+0.4000) and narrowest for l1 (+0.2000)" in held
    assert "l1 leaves 60% of the weights next to zero" in held
    assert "Most often right: none, 0.9000." in held


def test_confidence_is_called_too_sure_or_not_sure_enough() -> None:
    sure = [{"confidence": 0.9, "accuracy": 0.6, "count": 100}, {"confidence": 0.3, "accuracy": 0.3, "count": 1}]
    exact = [{"confidence": 0.8, "accuracy": 0.8, "count": 100}]
    with matplotlib_style():
        told = _told(mistakes.sections({"reliability": {"member:a": sure, "average": exact, "max": exact}}, []))
        alone = mistakes.sections({"reliability": {"average": exact}}, [])
    assert "best in average (ECE 0.000) and least in a (0.297), which is too sure of itself" in told
    assert len(alone[0].blocks[-1].plots) == 1  # type: ignore[union-attr]


def test_of_many_classes_only_the_commonest_mistakes_are_listed() -> None:
    n = 30
    counts = [[10 if i == j else 3 if (i, j) == (1, 2) else 0 for j in range(n)] for i in range(n)]
    (section,) = mistakes.sections({"confusion": {"average": counts}, "default_strategy": "average"}, [])
    assert [block.kind for block in section.blocks] == ["words", "table"]
    assert "answering 2 for 1, 3 times" in _told([section])
    faultless = mistakes.sections({"confusion": {"average": [[5, 0], [0, 5]]}}, ["a", "b"])
    assert "takes no class for another" in _told(faultless)


def test_tuning_tells_who_came_close_and_handles_words_for_values() -> None:
    results = [
        {"params": {"criterion": "gini", "depth": 1}, "mean_score": 0.5, "std_score": 0.1, "rank": 1},
        {
            "params": {"criterion": "entropy", "depth": None},
            "mean_score": 0.55,
            "std_score": 0.1,
            "rank": 2,
            "rows": 100,
        },
        {"params": {"criterion": "gini", "depth": 100}, "mean_score": 0.9, "std_score": None, "rank": 3},
    ]
    record = {"tuning": {"method": "GridSearchCV", "score": "log_loss", "folds": 3, "rows": 100, "results": results}}
    with matplotlib_style():
        told = _told(tuning.sections([{"name": "t", "record": record}]))
    assert "criterion gini, depth 1, log-loss 0.5000; the worst reached 0.9000. 1 other came within its spread" in told
    assert tuning.sections([{"name": "x", "record": {}}]) == []
