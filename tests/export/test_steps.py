"""Every step of the exporter, for real and in small: the recipe `smoke.toml`."""

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console
from rich.progress import Progress

from export import run as run_module
from export import steps
from export.__main__ import main
from export.errors import InvalidRecipe, NothingFits
from export.evaluate import METRICS
from export.recipe import Recipe, load_recipe
from export.run import Run
from server.repository import Repository, load_version
from tests.export.conftest import DIGITS

SMOKE = DIGITS.parent / "smoke.toml"


def _run(work: Path, recipe: Recipe | None = None) -> Run:
    return Run(recipe or load_recipe(SMOKE), work=work, data=None, progress=Progress(console=Console(quiet=True)))


@pytest.fixture(scope="module", name="trained")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the library and of the models that the whole recipe leaves."""
    work, models = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("models")
    folders = steps.train(_run(work), models)
    assert folders == [models / "smoke" / "1", models / "smoke-fast" / "1"]
    return work, models


@pytest.fixture(name="again")
def _again(trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that library, where nothing may be trained anew."""

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("expected it to be in the library")

    for name in ("train_member", "compare_activations", "compare_regularisation"):
        monkeypatch.setattr(run_module, name, refuse)
    shutil.copytree(trained[0], tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_every_ensemble_is_published_within_its_limits(trained: tuple[Path, Path]) -> None:
    work, models = trained
    repository = Repository.load(models)
    for name, limit in (("smoke", "max_size_mb"), ("smoke-fast", "max_cost_us")):
        ensemble = repository.get(name)
        selection = orjson.loads((work / "smoke" / name / "selection.json").read_bytes())
        assert list(selection["members"]) == list(ensemble.names)
        assert selection[{"max_size_mb": "size_mb", "max_cost_us": "cost_us"}[limit]] <= selection["limits"][limit]
        report = orjson.loads((models / name / "1" / "report.json").read_bytes())
        assert report["strategies"][report["default_strategy"]]["test"]["accuracy"]["value"] > 0.8


def test_the_report_tells_of_every_step(trained: tuple[Path, Path]) -> None:
    folder = trained[0] / "smoke"
    numbers = orjson.loads((folder / "report.json").read_bytes())
    page = (folder / "report.html").read_text()
    recipe = load_recipe(SMOKE)
    told = {candidate["name"] for candidate in numbers["candidates"]} | {one["name"] for one in numbers["failed"]}
    assert told == {member.name for member in recipe.members}
    assert len(numbers["searches"][0]["trials"]) == 4
    assert {row["activation"] for row in numbers["activations"]["summary"]} == {"relu", "tanh"}
    assert [variant["name"] for variant in numbers["regularisation"]["variants"]] == ["none", "dropout"]
    records = {candidate["name"]: candidate["record"] for candidate in numbers["candidates"]}
    assert {"forest", "extra", "tree", "xgb", "lgbm"} == {name for name in records if "tuning" in records[name]}
    assert records["student"]["teachers"] == ["cnn", "xgb"]
    assert records["pruned"]["control"]
    for ensemble in numbers["ensembles"]:
        assert all(set(scores) == set(METRICS) for scores in ensemble["test"].values())
        assert ensemble["baselines"]
        assert ensemble["subsets"]
        assert ensemble["selective"][ensemble["default_strategy"]][0]["share"] == 1
        assert "stacking" in {subset["strategy"] for subset in ensemble["subsets"]}
        if ensemble["cascade"]:
            assert sum(stage["share"] for stage in ensemble["cascade"]["stages"]) == pytest.approx(1, abs=1e-5)
            assert ensemble["cascade"]["sweep"]
    for name in (*told, "smoke-fast"):
        assert name in page
    assert "src=" not in page
    assert 'href="http' not in page


def test_a_second_run_trains_nothing_and_publishes_the_next_version(
    trained: tuple[Path, Path], again: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[1], tmp_path / "models")
    folders = steps.train(_run(again), tmp_path / "models")
    assert [folder.name for folder in folders] == ["2", "2"]
    for name in ("smoke", "smoke-fast"):
        first, second = (load_version(tmp_path / "models" / name / version).manifest for version in "12")
        assert [member.weights for member in first.members] == [member.weights for member in second.members]


def test_only_what_changed_is_made_anew(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def note(member: Any, task: object) -> None:
        made.append(member.name)
        raise NothingFits(f"{member.name}: not now")

    monkeypatch.setattr(run_module, "train_member", note)
    recipe = load_recipe(SMOKE)
    changed = [member.model_copy(update={"epochs": 9}) if member.name == "cnn" else member for member in recipe.members]
    run = _run(again, recipe.model_copy(update={"members": changed}))
    names = {entry.name for entry in run.candidates()}
    assert made == ["cnn"]
    # And with it all that is made of it.
    assert set(run.failed) == {"cnn", "student", "pruned", "cnn_int8", "cnn_float16"}
    assert names | set(run.failed) == {member.name for member in recipe.members}
    assert _run(again, run.recipe).candidates()
    assert made == ["cnn"], "what came to nothing is remembered"


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (["search"], ["runs/smoke/search-architecture.json"]),
        (["compare", "activations"], ["runs/smoke/activations.json"]),
        (["compare", "regularisation"], ["runs/smoke/regularisation.json"]),
        (["tune"], ["runs/candidates/forest-", "extra-", "tree-", "xgb-", "lgbm-"]),
        (["tune", "--member", "tree"], ["runs/candidates/tree-"]),
        (["distil"], ["runs/candidates/student-"]),
        (["prune"], ["runs/candidates/pruned-"]),
        (["quantise", "--member", "cnn_float16"], ["runs/candidates/cnn_float16-"]),
        (["select"], ["runs/smoke/smoke/selection.json", "runs/smoke/smoke-fast/selection.json"]),
        (["fit", "--ensemble", "smoke"], ["runs/smoke/smoke/fit.json"]),
        (["publish", "--ensemble", "smoke", "--out", "out"], ["out/smoke/1"]),
        (["report"], ["runs/smoke/report.html", "runs/smoke/report.json"]),
    ],
)
def test_every_step_is_a_command(
    again: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], made: list[str]
) -> None:
    where = len(arguments) if arguments[0] != "compare" else 2
    assert main([*arguments[:where], str(SMOKE)]) == 0, capsys.readouterr().err
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(made)
    for line, expected in zip(lines, made, strict=True):
        assert expected in line
        assert Path(line).exists()


def test_limits_of_the_command_line_take_the_place_of_the_recipes(
    again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["select", str(SMOKE), "--ensemble", "smoke", "--max-size-mb", "0.05"]
    assert main(arguments) == 0, capsys.readouterr().err
    selection = orjson.loads((again / "smoke" / "smoke" / "selection.json").read_bytes())
    assert selection["size_mb"] <= 0.05
    # What was selected is what is fitted and published.
    assert main(["fit", str(SMOKE), "--ensemble", "smoke"]) == 0
    fit = orjson.loads((again / "smoke" / "smoke" / "fit.json").read_bytes())
    assert list(fit["members"]) == list(selection["members"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["select", str(SMOKE), "--ensemble", "other"], "expected an ensemble of recipe 'smoke': smoke, smoke-fast"),
        (["select", str(SMOKE), "--max-cost-us", "0.0001"], "0.0001"),
        (["search", str(SMOKE), "--search", "other"], "expected a search of recipe 'smoke': architecture; got 'other'"),
        (["prune", str(SMOKE), "--member", "cnn"], "expected members that prune makes, of pruned; got 'cnn'"),
        (["select", str(DIGITS)], "expected [[ensembles]] to select for"),
        (["quantise", str(DIGITS)], "expected members for quantise to make, there are none"),
        (["search", str(DIGITS)], "expected a search of recipe 'digits': none"),
        (["compare", "activations", str(DIGITS)], "expected a table [compare.activations], there is none"),
    ],
)
def test_what_a_recipe_does_not_have_is_said(
    again: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "r.toml", "--trials", "0"],
        ["search", "r.toml", "--budget", "20"],
        ["select", "r.toml", "--max-cost-us", "-1"],
        ["select", "r.toml", "--max-size-mb", "nan"],
        ["compare", "r.toml"],
    ],
)
def test_options_that_mean_nothing_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    written = capsys.readouterr().err
    assert "expected" in written or "invalid choice" in written


def test_a_tree_has_no_weights_to_quantise(tmp_path: Path) -> None:
    recipe = load_recipe(SMOKE)
    shrunk = recipe.member("cnn_int8").model_copy(update={"of": "tree"})
    run = _run(tmp_path, recipe.model_copy(update={"members": [recipe.member("tree"), shrunk]}))
    with pytest.raises(InvalidRecipe, match="cnn_int8"):
        run.candidates()
