"""Asking a model: tensors in, tensors out."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from server.codec.options import RequestOptions
from server.engine import Engine
from server.errors import DeadlineExceeded, MemberFailed, QuorumMissed
from server.oip.infer import InferRequest, InferResponse, check_outputs, infer
from server.oip.models import find_model
from server.oip.parameters import Wanted
from server.oip.tensors import ELEMENTS, Datatype, Tensor
from server.uncertainty import Uncertainty
from tests import faulty, tiny
from tests.server.codec.specs import refusal

X = tiny.rows(3)


def tensor(values: Any, name: str = "X", datatype: Datatype = "FP32") -> Tensor:
    return Tensor(name, datatype, np.array(values, dtype=ELEMENTS[datatype]))


def ask(engine: Engine, name: str, *inputs: Tensor, outputs: Sequence[Wanted] = (), **options: Any) -> InferResponse:
    request = InferRequest(
        model=find_model(engine, name, 1),
        inputs=inputs or [tensor(X)],
        outputs=outputs,
        options=RequestOptions(**options),
        id="7",
    )
    return asyncio.run(infer(engine, request))


def values(response: InferResponse) -> dict[str, Any]:
    return {output.name: output.values for output in response.outputs}


class TestOfAClassification:
    def test_all_that_it_answers(self, engine: Engine) -> None:
        response = ask(engine, "tiny")
        members = tiny.answers(X, 3)
        said = values(response)
        assert list(said) == ["probabilities", "label", "member_probabilities", "uncertainty", "degraded"]
        assert_allclose(said["probabilities"], members.mean(axis=0), rtol=1e-5)
        assert_allclose(said["member_probabilities"], members.transpose(1, 0, 2), rtol=1e-5)
        assert said["label"].tolist() == [tiny.CLASSES[k] for k in members.mean(axis=0).argmax(axis=1)]
        assert said["degraded"].tolist() == [False] * 3
        entropy = list(Uncertainty.__dataclass_fields__).index("entropy")
        mean = members.mean(axis=0)
        assert_allclose(said["uncertainty"][:, entropy], -(mean * np.log(mean)).sum(axis=1), rtol=1e-4)
        assert response.id == "7"
        assert {**response.parameters, "members": ""} == {"strategy": "average", "members": "", "degraded": False}
        assert str(response.parameters["members"]).startswith("m1:0.33333")

    def test_the_outputs_are_those_that_are_described(self, engine: Engine) -> None:
        for name in ("tiny", "tiny.m1", "regression", "regression.m1"):
            model = find_model(engine, name, 1)
            response = ask(engine, name)
            assert [output.name for output in response.outputs] == list(model.outputs)
            for output in response.outputs:
                kind = model.outputs[output.name]
                expected = kind.shape(model.ensemble.manifest)
                assert output.datatype == kind.datatype
                assert output.values.dtype == ELEMENTS[kind.datatype]
                assert len(output.shape) == len(expected)
                assert all(size in (-1, came) for size, came in zip(expected, output.shape, strict=True))

    def test_only_what_is_asked_for_in_that_order(self, engine: Engine) -> None:
        response = ask(engine, "tiny", outputs=[Wanted("label"), Wanted("probabilities")])
        assert [output.name for output in response.outputs] == ["label", "probabilities"]

    def test_a_strategy(self, engine: Engine) -> None:
        response = ask(engine, "tiny", strategy="weighted", weights={"m1": 3, "m3": 1}, members=("m1", "m3"))
        first, _, third = tiny.answers(X, 3)
        assert_allclose(values(response)["probabilities"], 0.75 * first + 0.25 * third, rtol=1e-5)
        assert response.parameters == {"strategy": "weighted", "members": "m1:0.75,m3:0.25", "degraded": False}

    def test_a_label_that_is_left_open_is_empty(self, engine: Engine) -> None:
        response = ask(engine, "tiny", abstain_below=1.0)
        assert values(response)["label"].tolist() == ["", "", ""]

    def test_a_cascade_has_nan_for_those_that_it_did_not_ask(self, engine: Engine) -> None:
        sure = ask(engine, "cascade", cascade_threshold=0.0)
        assert values(sure)["member_probabilities"].shape == (3, 1, 3)
        x = tiny.rows(50)
        some = ask(engine, "cascade", tensor(x), cascade_threshold=0.7)
        members = values(some)["member_probabilities"]
        asked = tiny.answers(x, 3)[0].max(axis=1) < 0.7
        assert 0 < asked.sum() < 50
        assert not np.isnan(members[:, 0]).any()
        assert_array_equal(np.isnan(members[:, 1]).all(axis=1), ~asked)

    def test_the_best_classes_as_text(self, engine: Engine) -> None:
        response = ask(engine, "tiny", outputs=[Wanted("probabilities", 2)])
        [output] = response.outputs
        assert (output.datatype, output.shape) == ("BYTES", (3, 2))
        for row, texts in zip(tiny.answers(X, 3).mean(axis=0), output.values.tolist(), strict=True):
            best = np.argsort(-row)[:2]
            assert [text.split(":")[1:] for text in texts] == [[str(k), tiny.CLASSES[k]] for k in best]
            assert [float(text.split(":")[0]) for text in texts] == pytest.approx(row[best], abs=1e-6)

    def test_more_classes_than_there_are_are_all(self, engine: Engine) -> None:
        [output] = ask(engine, "tiny", outputs=[Wanted("probabilities", 99)]).outputs
        assert output.shape == (3, 3)


class TestOfAMember:
    @pytest.mark.parametrize("k", range(3))
    def test_its_own_answer(self, engine: Engine, k: int) -> None:
        response = ask(engine, f"tiny.m{k + 1}")
        own = tiny.answers(X, 3)[k]
        assert_allclose(values(response)["probabilities"], own, rtol=1e-5)
        assert values(response)["label"].tolist() == [tiny.CLASSES[i] for i in own.argmax(axis=1)]
        assert response.parameters == {}

    def test_of_a_regression(self, engine: Engine) -> None:
        assert_allclose(values(ask(engine, "regression.m2"))["values"], tiny.values(X, 3, 2)[1], rtol=1e-4)

    def test_one_that_fails(self, engine: Engine) -> None:
        with pytest.raises(QuorumMissed, match="m3"):
            ask(engine, "faulty.m3", tensor(faulty.rows(1, faulty.RAISE)))
        assert values(ask(engine, "faulty.m1", tensor(faulty.rows(1, faulty.RAISE))))["probabilities"].shape == (1, 3)


class TestOfOthers:
    def test_of_a_regression(self, engine: Engine) -> None:
        said = values(ask(engine, "regression"))
        members = tiny.values(X, 3, 2)
        assert_allclose(said["values"], members.mean(axis=0), rtol=1e-4)
        assert_allclose(said["member_values"], members.transpose(1, 0, 2), rtol=1e-4)
        assert_allclose(said["uncertainty"], members.std(axis=0), rtol=1e-4)

    def test_of_a_table(self, engine: Engine) -> None:
        people = tiny.people(4)
        inputs = [Tensor("age", "FP32", people["age"]), Tensor("job", "BYTES", people["job"])]
        said = values(ask(engine, "people", *inputs))
        assert_allclose(said["probabilities"], tiny.table_answers(people, 2).mean(axis=0), rtol=1e-4)

    def test_an_answer_that_a_member_is_missing_from(self, engine: Engine) -> None:
        response = ask(engine, "faulty", tensor(faulty.rows(2, faulty.NAN)))
        assert response.parameters == {
            "strategy": "average", "members": "m1:0.5,m2:0.5", "degraded": True, "missing": "m3:invalid"
        }  # fmt: skip
        assert values(response)["degraded"].tolist() == [True, True]
        assert values(response)["member_probabilities"].shape == (2, 2, 3)

    def test_one_that_may_not_be_missing(self, engine: Engine) -> None:
        with pytest.raises(MemberFailed):
            ask(engine, "faulty", tensor(faulty.rows(1, faulty.NAN)), on_failure="fail")


class TestOutputs:
    @pytest.mark.parametrize(
        ("wanted", "said"),
        [
            ([Wanted("probs")], "outputs: expected some of 'probabilities', 'label', 'member_probabilities', "),
            ([Wanted("label"), Wanted("label")], "outputs: expected each once; got one twice"),
            ([Wanted("label", 2)], "output 'label': expected classification of 'probabilities' only"),
        ],
    )
    def test_refused(self, engine: Engine, wanted: list[Wanted], said: str) -> None:
        model = find_model(engine, "tiny")
        assert refusal(lambda: check_outputs(model, wanted)).startswith(said)

    def test_what_is_wrong_is_found_before_anything_runs(self, engine: Engine) -> None:
        bad = tensor(faulty.rows(1, faulty.RAISE))
        said = refusal(lambda: ask(engine, "faulty", bad, outputs=[Wanted("nope")]))
        assert said.startswith("outputs: expected some of")
        ask(engine, "faulty", tensor(faulty.rows(1)), on_failure="fail")


@pytest.mark.parametrize(("at_most_ms", "deadline_ms"), [(50.0, None), (60_000.0, 50.0), (50.0, 60_000.0)])
def test_the_nearer_deadline_counts(engine: Engine, at_most_ms: float, deadline_ms: float | None) -> None:
    request = InferRequest(
        model=find_model(engine, "faulty.m3"),
        inputs=[tensor(faulty.rows(1, faulty.HANG))],
        options=RequestOptions(deadline_ms=deadline_ms),
    )

    async def run() -> None:
        with pytest.raises(DeadlineExceeded):
            await infer(engine, request, at_most_ms=at_most_ms)
        await engine.close()

    asyncio.run(run())
