"""Options as the parameters of a request, of its inputs and of its outputs."""

from typing import Any

import pytest

from server.codec.options import NO_OPTIONS, OPTIONS, RequestOptions
from server.errors import InvalidInput, Unsupported
from server.oip.models import Model
from server.oip.parameters import (
    ACCEPTED,
    Wanted,
    check_input_parameters,
    options_of,
    parse_parameters,
    parse_wanted,
    split_parameters,
)
from server.plan import Options
from tests import tiny
from tests.server.codec.specs import refusal

ENSEMBLE = Model(tiny.answering(3))
MEMBER = Model(tiny.answering(3), "m2")


class TestOptions:
    def test_none(self) -> None:
        assert split_parameters({}) == (NO_OPTIONS, None)
        assert options_of(ENSEMBLE, NO_OPTIONS) == Options()

    def test_all_of_them(self) -> None:
        said = parse_parameters(
            {
                "strategy": "weighted",
                "weights": "m1:0.6,m2:0.4",
                "members": "m1,m2",
                "cascade_threshold": 0.5,
                "deadline_ms": 20,
                "quorum": 1,
                "on_failure": "fail",
                "abstain_below": 0.25,
            }
        )
        assert said == RequestOptions(
            strategy="weighted",
            weights={"m1": 0.6, "m2": 0.4},
            members=("m1", "m2"),
            cascade_threshold=0.5,
            deadline_ms=20.0,
            quorum=1,
            on_failure="fail",
            abstain_below=0.25,
        )
        assert options_of(ENSEMBLE, said).weights == {"m1": 0.6, "m2": 0.4}

    def test_numbers_may_be_text(self) -> None:
        assert parse_parameters({"quorum": "2", "abstain_below": "0.5"}) == RequestOptions(quorum=2, abstain_below=0.5)

    def test_every_option_but_detail_is_one(self) -> None:
        assert set(ACCEPTED) == set(OPTIONS) - {"detail"}
        said = refusal(lambda: options_of(ENSEMBLE, parse_parameters({"detail": "members"})))
        assert said == "detail: expected none; ask for outputs, such as uncertainty, instead"

    @pytest.mark.parametrize("name", ["priority", "sequence_id", "sequence_start", "sequence_end", "headers"])
    def test_what_clients_send_of_themselves(self, name: str) -> None:
        assert parse_parameters({name: 1, "triton_any": True, "binary_data_output": True}) is NO_OPTIONS

    @pytest.mark.parametrize(
        ("parameters", "said"),
        [
            ({"stratgy": "vote"}, "parameters: expected no others than 'strategy', 'weights', 'members', "),
            ({"strategy": 1}, "parameters: strategy: expected a string; got 1"),
            (
                {"weights": {"m1": 1}},
                "parameters: 'weights': expected a string, a number, true or false; got an object",
            ),
            ({"members": ["m1"]}, "parameters: 'members': expected a string, a number, true or false; got an array of"),
            ({"strategy": None}, "parameters: 'strategy': expected a string, a number, true or false; got null"),
            ({"quorum": True}, "parameters: quorum: expected a string; got true"),
            ({"quorum": 0}, "quorum: expected a whole number from 1 to 256; got 0"),
            ({"weights": "m1=1"}, "parameters: weights: expected name:number,name:number; got the string 'm1=1'"),
            ({"strategy": ""}, "parameters: strategy: expected a value; got none"),
            ({"timeout": -1}, "parameters: timeout: expected microseconds, a whole number; got -1"),
            ({"timeout": 1.5}, "parameters: timeout: expected microseconds, a whole number; got 1.5"),
            ({"timeout": True}, "parameters: timeout: expected microseconds, a whole number; got true"),
            ({"timeout": "5"}, "parameters: timeout: expected microseconds, a whole number; got the string '5'"),
        ],
    )
    def test_refused(self, parameters: dict[str, Any], said: str) -> None:
        assert refusal(lambda: parse_parameters(parameters)).startswith(said)

    @pytest.mark.parametrize(
        ("parameters", "deadline"),
        [
            ({"timeout": 0}, None),
            ({"timeout": 2500}, 2.5),
            ({"timeout": 2500, "deadline_ms": 1}, 1.0),
            ({"timeout": 2500, "deadline_ms": 9}, 2.5),
            ({"timeout": 1 << 60}, 3_600_000),
        ],
    )
    def test_the_nearer_of_timeout_and_deadline(self, parameters: dict[str, Any], deadline: float | None) -> None:
        assert parse_parameters(parameters).deadline_ms == deadline


class TestOfAMember:
    def test_it_answers_as_itself(self) -> None:
        assert options_of(MEMBER, NO_OPTIONS) == Options(strategy="average", members=("m2",))
        regression = Model(tiny.answering(2, task="regression"), "m1")
        assert options_of(regression, NO_OPTIONS) == Options(strategy="mean", members=("m1",))

    def test_what_makes_sense_of_one(self) -> None:
        said = options_of(MEMBER, RequestOptions(deadline_ms=5, abstain_below=0.5))
        assert (said.deadline_ms, said.abstain_below, said.members) == (5, 0.5, ("m2",))

    @pytest.mark.parametrize(
        "options", [{"strategy": "vote"}, {"members": ("m1",)}, {"quorum": 1}, {"weights": {"m2": 1}}]
    )
    def test_and_what_does_not(self, options: dict[str, Any]) -> None:
        said = refusal(lambda: options_of(MEMBER, RequestOptions(**options)))
        assert said == f"{next(iter(options))}: expected none: 'tiny.m2' is one member; ask its ensemble"


class TestOfTensors:
    def test_an_output(self) -> None:
        assert parse_wanted("label", {}) == Wanted("label")
        assert parse_wanted("label", {"binary_data": True}) == Wanted("label")
        assert parse_wanted("probabilities", {"classification": 2}) == Wanted("probabilities", 2)

    @pytest.mark.parametrize("value", [-1, 1.0, True, "2", None])
    def test_a_classification_that_is_no_count(self, value: object) -> None:
        said = refusal(lambda: parse_wanted("p", {"classification": value}))
        assert said.startswith("output 'p': parameters: classification: expected a whole number; got ")

    def test_others(self) -> None:
        assert refusal(lambda: parse_wanted("p", {"x": 1})) == (
            "output 'p': parameters: expected no others than 'binary_data', 'classification'; got 'x'"
        )
        assert refusal(lambda: check_input_parameters("X", {"binary_data_size": 1, "x": 1})) == (
            "input 'X': parameters: expected no others than 'binary_data_size'; got 'x'"
        )

    def test_shared_memory(self) -> None:
        with pytest.raises(Unsupported, match="output 'p': parameters: there is no shared memory with this server"):
            parse_wanted("p", {"shared_memory_region": "r"})
        with pytest.raises(Unsupported, match="input 'X': parameters: there is no shared memory"):
            check_input_parameters("X", {"shared_memory_region": "r"})
        assert not issubclass(Unsupported, InvalidInput)
