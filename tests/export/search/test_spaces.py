"""What a search may draw, and the networks that it stands for."""

import pytest
from optuna.trial import FixedTrial

from export.members.network import build
from export.recipe import AvgPool, Conv, Dense, Dropout, Flatten, GlobalPool, MaxPool
from export.search.front import LAYERS
from export.search.spaces import MOST_FILTERS, SPACES, Draws, propose
from server.manifest import InputSpec

PARAMS = {
    "activation": "swish",
    "batch_norm": True,
    "stem": "none",
    "down": "maxpool",
    "kernel": 5,
    "separable": False,
    "blocks": 2,
    "convs": 2,
    "width": 32,
    "growth": 2,
    "flat": "flatten",
    "dropout": 0.2,
    "dense": 1,
    "units": 64,
    "learning_rate": 0.003,
    "batch_size": 64,
}


def draws(**changes: object) -> Draws:
    fixed: Draws = FixedTrial(PARAMS | changes)
    return fixed


def conv(filters: int, size: int = 3, **settings: object) -> Conv:
    return Conv.model_validate(
        {
            "layer": "conv",
            "filters": filters,
            "size": size,
            "padding": "same",
            "activation": "swish",
            "batch_norm": True,
        }
        | settings
    )


MAX, AVG, FLAT = MaxPool(layer="maxpool"), AvgPool(layer="avgpool"), Flatten(layer="flatten")
DROP = Dropout(layer="dropout", rate=0.2)
DENSE = Dense(layer="dense", units=64, activation="swish", batch_norm=True)
HEAD = [FLAT, DROP, DENSE, DROP]


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        # The whole picture is convolved but once.
        ({}, [conv(32, 5), MAX, conv(64), conv(64), MAX, *HEAD]),
        ({"stem": "avgpool"}, [AVG, conv(32, 5), conv(32), MAX, conv(64), conv(64), MAX, *HEAD]),
        ({"stem": "stride", "blocks": 1}, [conv(32, 5, stride=2), conv(32), MAX, *HEAD]),
        ({"down": "stride"}, [conv(32, 5, stride=2), conv(32), conv(64, stride=2), conv(64), *HEAD]),
        ({"down": "stride", "stem": "stride", "blocks": 1}, [conv(32, 5, stride=4), conv(32), *HEAD]),
        (
            {"separable": True, "down": "avgpool"},
            [conv(32, 5), AVG, conv(64, 5, separable=True), conv(64, 5, separable=True), AVG, *HEAD],
        ),
        (
            {"dense": 0, "dropout": 0.0, "flat": "globalpool", "blocks": 1, "growth": 1},
            [conv(32, 5), MAX, GlobalPool(layer="globalpool")],
        ),
    ],
)
def test_a_draw_becomes_the_layers_of_a_recipe(changes: dict[str, object], layers: list[object]) -> None:
    proposal = propose(SPACES["deeper_and_wider"], draws(**changes), side=28)
    assert proposal.layers == layers
    assert (proposal.learning_rate, proposal.batch_size) == (0.003, 64)
    assert LAYERS.validate_python([layer.model_dump(mode="json") for layer in proposal.layers]) == layers


def test_widths_grow_up_to_a_limit() -> None:
    proposal = propose(SPACES["deeper_and_wider"], draws(width=64, blocks=4, convs=1), side=64)
    filters = [layer.filters for layer in proposal.layers if isinstance(layer, Conv)]
    assert filters == [64, 128, MOST_FILTERS, MOST_FILTERS]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("side", [1, 2, 3, 8, 28])
@pytest.mark.parametrize("stem", ["none", "stride", "avgpool"])
def test_small_pictures_are_halved_only_as_far_as_they_go(space: str, side: int, stem: str) -> None:
    """A network of the most blocks there may be can be built, whatever the picture."""
    most = max(1, min(SPACES[space].blocks, side.bit_length() - 1))
    settings = {"blocks": most, "convs": 1, "width": 16, "units": 32, "stem": stem, "batch_norm": False}
    layers = propose(SPACES[space], draws(**settings), side).layers
    model = build(layers, InputSpec(name="image", shape=[side, side, 1], low=0.0, high=255.0), 10, name="network")
    assert model.output_shape == (None, 10)


def test_spaces_say_how_deep_and_how_wide() -> None:
    """What the widest and deepest of each space may draw lies beyond the other's."""
    deeper, wider, both = (SPACES[name] for name in ("deeper", "wider", "deeper_and_wider"))
    assert deeper.blocks > wider.blocks
    assert wider.widths[1] > deeper.widths[1]
    assert both.blocks == deeper.blocks
    assert both.widths[1] > deeper.widths[1]
