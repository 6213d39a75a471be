"""The matrix of converters: a few cases for real, and that the page is of all of them."""

from pathlib import Path

import pytest

from bench.case import Case, load
from bench.converters import PAGE, Outcome, all_cases, main, render, replaced, try_out


def _case(family: str, name: str) -> Case:
    (found,) = (case for case in all_cases() if (case.family, case.name) == (family, name))
    return found


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("scikit-learn classifiers", "DecisionTreeClassifier"),
        ("scikit-learn pipelines", "ColumnTransformer: scaled numbers, OneHotEncoder"),
        ("XGBoost", "binary:logistic"),
        ("LightGBM", "multiclass"),
    ],
)
def test_what_converts_has_a_figure(family: str, name: str) -> None:
    outcome = try_out(_case(family, name))
    assert outcome.message == ""
    assert outcome.difference is not None
    assert outcome.difference <= 1e-5


def test_what_does_not_has_a_reason() -> None:
    outcome = try_out(_case("scikit-learn classifiers", "LabelPropagation"))
    assert (outcome.difference, outcome.caught) == (None, False)
    assert "LabelPropagation" in outcome.message
    assert "/tmp" not in outcome.message


def test_each_data_set_has_rows_to_train_on_and_rows_to_check_on() -> None:
    for data in {case.data for case in all_cases()}:
        training, dataset = load(data)
        assert len(training.x) == len(training.y)
        assert abs(len(training.y) - sum(map(len, (dataset.validation, dataset.calibration, dataset.test)))) <= 1
        assert training.n_classes == len(dataset.classes)


def test_a_table_says_what_passed_what_was_caught_and_what_has_no_graph() -> None:
    case = _case("XGBoost", "dart")
    outcomes = [Outcome(case, 1.23e-7), Outcome(case, None, "a | b", caught=True), Outcome(case, None, "no converter")]
    table = render(outcomes)
    assert "1 of 3 convert; the gate caught 1 wrong graph.\n" in table
    assert "| dart | 1.2e-07 |  |\n| dart | **caught** | a \\| b |\n| dart | – | no converter |\n" in table


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = PAGE.read_text()
    written = replaced(replaced(page, "old tables"), "new tables")
    assert "new tables" in written
    assert "old tables" not in written
    assert written.partition("<!-- begin")[0] == page.partition("<!-- begin")[0]


def test_the_page_lists_every_case() -> None:
    lines = PAGE.read_text().splitlines()
    for family in {case.family for case in all_cases()}:
        assert f"## {family}" in lines
    names = [line.split(" | ")[0].removeprefix("| ").replace("\\", "") for line in lines if line.startswith("| ")]
    assert {case.name for case in all_cases()} <= set(names)


def test_names_are_told_apart() -> None:
    cases = [(case.family, case.name) for case in all_cases()]
    assert len(set(cases)) == len(cases)


def test_some_cases_are_printed_and_not_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert main(["--only", "xgboost: max_depth", "--page", str(page)]) == 0
    assert "| max\\_depth=1 |" in capsys.readouterr().out
    assert not page.exists()
