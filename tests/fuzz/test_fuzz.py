"""Every target with its corpus, and with some of what may be made of it; `make fuzz` takes longer."""

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.graphs import Graphs
from tests.fuzz.requests import Requests
from tests.fuzz.sockets import Storm, make_seeds, serving
from tests.fuzz.targets import Bodies, Manifests, Queries, Target

FAST: list[type[Target]] = [Requests, Bodies, Queries, Manifests]
EXAMPLES = {"requests": 5000, "bodies": 8000, "queries": 4000, "manifests": 3000}
N_GRAPHS = 100
N_REQUESTS = 4000


@pytest.fixture(scope="module", params=FAST, ids=lambda target: target.name)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    with request.param() as target:
        yield target


def test_the_corpus_passes(target: Target) -> None:
    words = [target.run(data) for data in target.seeds()]
    assert any(word in ("read", "200") for word in words)


@settings(deadline=None, max_examples=1, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_is_made_of_it_passes(target: Target, data: st.DataObject) -> None:
    seeds = target.seeds()

    @settings(deadline=None, max_examples=EXAMPLES[target.name], suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def passes(random: Random) -> None:
        target.run(target.damage(random, seeds))

    passes()


def test_graphs() -> None:
    random = Random(1)
    with Graphs() as graphs:
        seeds = graphs.seeds()
        assert graphs.run(seeds[0]) == "loaded"
        for _ in range(N_GRAPHS):
            graphs.run(graphs.damage(random, seeds))


def test_a_server() -> None:
    with serving() as server:
        for seed in make_seeds():
            headers: dict[str, Any] = dict(header.decode().split(": ") for header in seed.headers)
            headers["Content-Type"] = seed.type.decode()
            status, body = server.request("POST", seed.path.decode(), seed.body, **headers)
            assert status == 200, (seed, body)
        storm = Storm(server, Random(1), goes_on=lambda done: done < N_REQUESTS)
        asyncio.run(storm.rage())
        assert storm.words["200"] > 0
        assert storm.n_good > N_REQUESTS / 20
