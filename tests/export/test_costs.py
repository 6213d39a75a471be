import pytest

from export.costs import measure_cost, measure_costs
from tests.export.small import TREE, XGB, digits, train


def test_each_graph_costs_something() -> None:
    dataset = digits()
    models = {recipe.name: train(recipe, dataset).to_onnx() for recipe in (TREE, XGB)}
    costs = measure_costs(models, dataset.validation.x)
    assert list(costs) == ["tree", "xgb"]
    assert all(cost > 0 for cost in costs.values())
    assert measure_cost(models["tree"], dataset.validation.x[:1]) > 0


def test_no_graphs_cost_nothing() -> None:
    assert measure_costs({}, digits().validation.x) == {}


def test_a_graph_that_cannot_be_loaded_is_named() -> None:
    from onnx import ModelProto

    from server.errors import InvalidRepository

    with pytest.raises(InvalidRepository, match=r"broken\.onnx"):
        measure_costs({"broken": ModelProto()}, digits().validation.x)
