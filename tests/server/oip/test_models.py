"""Ensembles and their members as models."""

import asyncio
import json

import pytest

from server.engine import Engine
from server.errors import NotFound
from server.oip.models import TensorMetadata, describe, find_model, is_ready, parse_version, versions_of
from server.plan import Options
from server.uncertainty import Uncertainty
from tests import faulty, tiny
from tests.server.codec.specs import refusal


@pytest.mark.parametrize(
    ("name", "version", "found", "member"),
    [
        ("tiny", None, "2", None),
        ("tiny", 1, "1", None),
        ("tiny.m1", None, "2", "m1"),
        ("tiny.m3", 1, "1", "m3"),
        ("regression.m2", None, "1", "m2"),
    ],
)
def test_found(engine: Engine, name: str, version: int | None, found: str, member: str | None) -> None:
    model = find_model(engine, name, version)
    assert (model.name, model.version, model.member) == (name, found, member)


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("nope", None, "no model 'nope'; there are: cascade, faulty, people, pictures, regression, tiny"),
        ("tiny.m9", None, "no model 'tiny.m9'; members of 'tiny': m1, m2"),
        ("tiny.m3", 2, "no model 'tiny.m3'; members of 'tiny': m1, m2"),
        ("tiny.", None, "no model 'tiny.'; members of 'tiny': m1, m2"),
        ("", None, "no model ''; there are: cascade, faulty, people, pictures, regression, tiny"),
        ("n" * 99, None, f"no model '{'n' * 64}'; there are: cascade, faulty, people, pictures, regression, tiny"),
    ],
)
def test_not_found(engine: Engine, name: str, version: int | None, said: str) -> None:
    with pytest.raises(NotFound) as caught:
        find_model(engine, name, version)
    assert caught.value.message == said


def test_a_version_that_is_not_served(engine: Engine) -> None:
    with pytest.raises(NotFound, match="tiny"):
        find_model(engine, "tiny", 9)


def test_versions(engine: Engine) -> None:
    assert [model.version for model in versions_of(engine, find_model(engine, "tiny"))] == ["1", "2"]
    assert [model.version for model in versions_of(engine, find_model(engine, "tiny.m1"))] == ["1", "2"]
    assert [model.version for model in versions_of(engine, find_model(engine, "tiny.m3", 1))] == ["1"]


def test_a_version_as_text() -> None:
    assert [parse_version(text) for text in ("", "1", "999999999")] == [None, 1, 999_999_999]


@pytest.mark.parametrize("text", ["0", "01", "-1", "1.0", "x", "1000000000", " 1", "١", "1\n"])
def test_what_is_no_version(text: str) -> None:
    assert refusal(lambda: parse_version(text)) == f"version: expected a number from 1 to 999999999; got {text!r}"


class TestMetadata:
    def test_of_an_ensemble(self, engine: Engine) -> None:
        said = describe(engine, find_model(engine, "tiny", 1))
        assert (said.name, said.versions, said.platform) == ("tiny", ("1", "2"), "committee")
        assert said.inputs == (TensorMetadata("X", "FP32", (-1, 4)),)
        assert said.outputs == (
            TensorMetadata("probabilities", "FP32", (-1, 3)),
            TensorMetadata("label", "BYTES", (-1,)),
            TensorMetadata("member_probabilities", "FP32", (-1, -1, 3)),
            TensorMetadata("uncertainty", "FP32", (-1, len(Uncertainty.__dataclass_fields__))),
            TensorMetadata("degraded", "BOOL", (-1,)),
        )
        properties = {name: json.loads(text) for name, text in said.properties.items()}
        assert properties["classes"] == tiny.CLASSES
        assert properties["members"] == ["m1", "m2", "m3"]
        assert "vote" in properties["strategies"]
        assert properties["uncertainty"] == list(Uncertainty.__dataclass_fields__)

    def test_of_a_member(self, engine: Engine) -> None:
        said = describe(engine, find_model(engine, "tiny.m1"))
        assert (said.name, said.versions, said.platform) == ("tiny.m1", ("1", "2"), "onnxruntime_onnx")
        assert [output.name for output in said.outputs] == ["probabilities", "label"]
        assert list(said.properties) == ["classes"]

    def test_of_a_regression(self, engine: Engine) -> None:
        said = describe(engine, find_model(engine, "regression"))
        assert said.outputs == (
            TensorMetadata("values", "FP32", (-1, 2)),
            TensorMetadata("member_values", "FP32", (-1, -1, 2)),
            TensorMetadata("uncertainty", "FP32", (-1, 2)),
            TensorMetadata("degraded", "BOOL", (-1,)),
        )
        assert json.loads(said.properties["targets"]) == tiny.TARGETS
        assert [output.name for output in describe(engine, find_model(engine, "regression.m1")).outputs] == ["values"]

    def test_of_a_table(self, engine: Engine) -> None:
        assert describe(engine, find_model(engine, "people")).inputs == (
            TensorMetadata("age", "FP32", (-1, 1)),
            TensorMetadata("job", "BYTES", (-1, 1)),
        )


def test_a_member_that_is_left_alone_is_not_ready(engine: Engine) -> None:
    models = [find_model(engine, name) for name in ("faulty", "faulty.m1", "faulty.m2", "faulty.m3")]

    async def ready_after(fault: float | None) -> list[bool]:
        await engine.infer(models[0].ensemble, faulty.rows(1, fault), Options())
        return [is_ready(engine, model) for model in models]

    faulty.blame_members(engine)

    async def run() -> None:
        assert await ready_after(None) == [True, True, True, True]
        assert await ready_after(faulty.RAISE) == [True, True, True, False]

    asyncio.run(run())
