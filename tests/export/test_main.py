from pathlib import Path

import pytest

from export.__main__ import main
from tests.export.conftest import DIGITS


def test_an_error_is_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "none.toml"), "--out", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.strip()
    assert line.startswith("committee-export: ")
    assert line.endswith("none.toml: cannot be read: No such file or directory")
    assert "\n" not in line


def test_a_recipe_is_trained_and_its_folder_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe of one tree: the smallest there is."""
    recipe = tmp_path / "one.toml"
    recipe.write_text(
        """
        name = "one"
        dataset = "digits"
        [[members]]
        kind = "decision_tree"
        name = "tree"
        max_depth = 6
        """
    )
    for version in ("1", "2"):
        assert main(["train", str(recipe), "--out", str(tmp_path / "models"), "--work", str(tmp_path / "runs")]) == 0
        folder = tmp_path / "models" / "one" / version
        assert capsys.readouterr().out == f"{folder}\n"
        assert (folder / "ensemble.toml").is_file()


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "train" in capsys.readouterr().out


def test_the_shipped_recipe_is_there() -> None:
    assert DIGITS.is_file()
    assert (DIGITS.parent / "seed.toml").is_file()


def test_help_of_evaluate_and_pack_names_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    for command, options in (("evaluate", ("--against", "--threshold")), ("pack", ("--cascade-tolerance",))):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out
        assert all(option in shown for option in options)


def test_the_tolerance_of_pack_is_a_share(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pack", "name", "model.onnx", "--cascade-tolerance", "2"])
    assert "--cascade-tolerance: expected a number from 0 to 1, got '2'" in capsys.readouterr().err
