from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

from export.adapt import member_of
from export.datasets import Dataset
from export.errors import Mismatch
from export.facts import Checked, used_columns, with_facts
from export.formats import source_of
from export.parity import open_graph
from tests.export.small_models import COLUMNS, N, frame, of_table, of_vectors, pipeline, vectors


def _checked(dataset: Dataset, *models: Any) -> list[Checked]:
    members = [member_of(source_of(model), f"m{k}", dataset) for k, model in enumerate(models)]
    return [Checked(member, open_graph(member, member.to_onnx())) for member in members]


def _strict() -> Any:
    """Takes neither missing values nor text that it has not seen."""
    rows = frame()[: N // 2].dropna()
    columns = make_column_transformer((StandardScaler(), ["age", "hours per week"]), (OneHotEncoder(), ["job", "town"]))
    return make_pipeline(columns, LogisticRegression(max_iter=300)).fit(rows[list(COLUMNS)], rows.income)


def _boosted() -> Any:
    rows = frame()[: N // 2]
    return XGBClassifier(n_estimators=3).fit(rows[["age", "hours per week"]], rows.income == "low")


def _facts(dataset: Dataset) -> dict[str, tuple[bool, str]]:
    return {spec.name: (spec.missing, spec.unknown) for spec in dataset.inputs}


def test_what_all_members_bear_is_allowed() -> None:
    dataset, notes = with_facts(
        _checked(of_table(), pipeline(LogisticRegression(max_iter=300)), _boosted()), of_table()
    )
    assert _facts(dataset) == {
        "age": (True, "refuse"),  # of numbers, there is nothing unknown
        "hours per week": (True, "refuse"),
        "job": (True, "accept"),
        "town": (True, "accept"),
    }
    assert notes == []
    assert len(dataset.validation) == 100


def test_what_one_member_does_not_bear_is_refused_and_rows_that_have_it_are_left_out() -> None:
    table = of_table()
    checked = _checked(table, pipeline(LogisticRegression(max_iter=300)), _strict())
    dataset, notes = with_facts(checked, table)
    assert set(_facts(dataset).values()) == {(False, "refuse")}
    for split in (dataset.validation, dataset.calibration, dataset.test):
        assert not np.isnan(split.x["age"]).any()
        assert (split.x["job"] != "").all()
        assert len(split.x) == len(split.y)
    parts = (table.validation, table.calibration, table.test)
    ages = sum(int(np.isnan(part.x["age"]).sum()) for part in parts)
    jobs = sum(int((part.x["job"] == "").sum()) for part in parts)
    assert notes[0].startswith(f"{ages} rows lack 'age', left out: member 'm1': the model itself does not answer")
    assert notes[1].startswith(f"{jobs} rows lack 'job', left out: member 'm1'")


def test_a_graph_that_answers_missing_values_otherwise_does_not_bear_them() -> None:
    table = of_table()
    (one,) = _checked(table, _boosted())

    def astray(rows: Any) -> Any:
        answer = one.member.predict_proba(rows)
        missing = np.isnan(rows["hours per week"][:, 0])
        answer[missing] = answer[missing][:, ::-1]
        return answer

    dataset, _ = with_facts([Checked(replace(one.member, predict_proba=astray), one.session)], table)
    assert (_facts(dataset)["age"][0], _facts(dataset)["hours per week"][0]) == (True, False)


def test_too_few_rows_left_are_an_error() -> None:
    table = of_table()
    holes = table.validation.x.copy()
    holes["job"] = ""
    table = replace(table, validation=replace(table.validation, x=holes))
    with pytest.raises(Mismatch, match=r"too many rows lack a value that some member needs: .* lack 'job'"):
        with_facts(_checked(table, _strict()), table)


def test_of_arrays_missing_numbers_are_asked_about_only_where_the_data_has_some() -> None:
    x, y = vectors()
    plain = of_vectors()
    missing = replace(plain, inputs=[plain.inputs[0].model_copy(update={"missing": True})])
    for model, expected in ((XGBClassifier(n_estimators=3), True), (LogisticRegression(), False)):
        fitted = model.fit(x, y)
        dataset, _ = with_facts(_checked(missing, fitted), missing)
        assert dataset.inputs[0].missing is expected
        dataset, _ = with_facts(_checked(plain, fitted), plain)
        assert not dataset.inputs[0].missing


def test_columns_that_nobody_reads_go() -> None:
    dataset, notes = used_columns(of_table(), ["hours per week", "town"])
    assert [spec.name for spec in dataset.inputs] == ["hours per week", "town"]
    assert dataset.test.x.dtype.names == ("hours per week", "town")
    assert notes == ["no member reads age, job: left out"]
    assert used_columns(of_table(), COLUMNS)[1] == []


def test_one_column_of_numbers_that_is_left_is_no_table_any_more() -> None:
    dataset, _ = used_columns(of_table(), ["age"])
    assert dataset.test.x.shape == (100, 1)
    assert dataset.test.x.dtype == np.float32
