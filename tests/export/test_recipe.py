from pathlib import Path

import pytest

from export.errors import InvalidRecipe
from export.recipe import Conv, DecisionTree, Dense, Flatten, KerasCnn, MaxPool, Xgboost, load_recipe

RECIPES = Path(__file__).parents[2] / "export" / "recipes"
VALID = """
name = "e"
dataset = "digits"
seed = 1

[[members]]
kind = "keras_cnn"
name = "cnn"
layers = [{ layer = "conv", filters = 4 }, { layer = "flatten" }]
epochs = 2

[[members]]
kind = "decision_tree"
name = "tree"
max_features = 0.5
"""


def _load(tmp_path: Path, text: str | bytes) -> str:
    """The message with which this recipe is refused."""
    path = tmp_path / "recipe.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidRecipe) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_seed_recipe_is_the_seed_network_and_its_trees() -> None:
    recipe = load_recipe(RECIPES / "seed.toml")
    assert (recipe.name, recipe.dataset) == ("fashion", "fashion_mnist")
    cnn, *trees, xgb = recipe.members
    assert [member.name for member in recipe.members] == ["cnn", "tree_1", "tree_2", "tree_3", "xgb"]
    assert isinstance(cnn, KerasCnn)
    assert (cnn.batch_size, cnn.epochs, cnn.learning_rate) == (128, 10, 0.001)
    assert cnn.layers == [
        Conv(layer="conv", filters=32, size=3, activation="relu"),
        MaxPool(layer="maxpool", size=2),
        Conv(layer="conv", filters=64, size=3, activation="relu"),
        MaxPool(layer="maxpool", size=2),
        Conv(layer="conv", filters=64, size=3, activation="relu"),
        Flatten(layer="flatten"),
        Dense(layer="dense", units=64, activation="relu"),
    ]
    settings = [tree.model_dump(exclude={"name"}) for tree in trees]
    assert all(isinstance(tree, DecisionTree) for tree in trees)
    assert all(settings.count(one) == 1 for one in settings)
    assert isinstance(xgb, Xgboost)
    assert (xgb.n_estimators, xgb.max_depth) == (60, 6)


def test_digits_recipe_has_the_same_kinds() -> None:
    seed, digits = load_recipe(RECIPES / "seed.toml"), load_recipe(RECIPES / "digits.toml")
    assert (digits.name, digits.dataset) == ("digits", "digits")
    assert [(m.kind, m.name) for m in digits.members] == [(m.kind, m.name) for m in seed.members]


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(VALID)
    recipe = load_recipe(path)
    assert recipe.max_batch_size == 4096
    assert recipe.members[0] == KerasCnn(
        kind="keras_cnn", name="cnn", layers=[Conv(layer="conv", filters=4), Flatten(layer="flatten")], epochs=2
    )
    assert recipe.members[1] == DecisionTree(kind="decision_tree", name="tree", max_features=0.5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2", "epochs = 0", "members[0].keras_cnn.epochs: Input should be greater than or equal to 1, got 0"),
        ("epochs = 2", "epochs = 2.5", "members[0].keras_cnn.epochs: Input should be a valid integer, got 2.5"),
        ("epochs = 2", "epoch = 2", "members[0].keras_cnn.epoch: Extra inputs are not permitted, got 2"),
        ('name = "cnn"', 'name = "../cnn"', "members[0].keras_cnn.name: String should match pattern"),
        ('name = "cnn"', 'name = "tree"', "Value error, members: 'tree' is named more than once"),
        ('kind = "decision_tree"', 'kind = "oak"', "members[1]: Input tag 'oak' found using 'kind' does not match"),
        (
            'layer = "conv", filters = 4',
            'layer = "dense"',
            "members[0].keras_cnn.layers[0].dense.units: Field required",
        ),
        ("seed = 1", "seed = -1", "seed: Input should be greater than or equal to 0, got -1"),
        ("max_features = 0.5", "max_features = 1.5", "members[1].decision_tree.max_features"),
        ('dataset = "digits"', "", "dataset: Field required"),
        ('name = "e"', "name = ", "not TOML: Invalid value"),
    ],
)
def test_a_refusal_names_the_field_what_was_expected_and_what_came(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert _load(tmp_path, VALID.replace(old, new)).startswith(message)


def test_no_members_is_refused(tmp_path: Path) -> None:
    assert _load(tmp_path, 'name = "e"\ndataset = "digits"\nmembers = []').startswith("members: List should have")


def test_not_utf8_is_refused(tmp_path: Path) -> None:
    assert _load(tmp_path, b'name = "\xff"') == "expected UTF-8, got byte 0xff at 8"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match=r"none\.toml: cannot be read: No such file"):
        load_recipe(tmp_path / "none.toml")


def test_an_ensemble_says_how_much_accuracy_its_cascade_may_cost(tmp_path: Path) -> None:
    table = '\n[[ensembles]]\nname = "fast"\n'
    (tmp_path / "recipe.toml").write_text(f"{VALID}{table}cascade_tolerance = 0.01\n")
    (choice,) = load_recipe(tmp_path / "recipe.toml").published
    assert choice.cascade_tolerance == 0.01
    (tmp_path / "recipe.toml").write_text(VALID)
    (usual,) = load_recipe(tmp_path / "recipe.toml").published
    assert usual.cascade_tolerance == 0.0005
    assert "cascade_tolerance" in _load(tmp_path, f"{VALID}{table}cascade_tolerance = -0.1\n")
