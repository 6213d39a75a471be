"""What is served is the same for all: members apart, packed, and as Committee's repository."""

from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import onnx
import pytest

from bench.peers.bodies import rows
from bench.peers.servers.members import Member, Members
from bench.peers.workloads import FASHION, heavy, open_graph, prepare, repeated, unpack, workload
from server.repository import load_version
from server.session import Session


def test_unpacked_members_answer_what_they_answer_packed(tmp_path: Path) -> None:
    packed = onnx.load(FASHION / "ensemble.onnx")
    members = unpack(packed)
    assert list(members) == ["cnn", "tree_1", "tree_2", "tree_3", "xgb"]
    x = rows(24)
    session = Session(packed.SerializeToString(), where="packed")
    (together,) = session.run(["member_probabilities"], {"image": x.reshape(-1, 28, 28, 1)})
    for k, (name, model) in enumerate(members.items()):
        onnx.checker.check_model(model, full_check=True)
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        assert np.array_equal(Member(path)(x), together[k])


@pytest.mark.parametrize(("name", "count"), [("fashion", 5), ("members-7", 7), ("heavy", 5)])
def test_peers_and_committee_are_given_the_same(
    name: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare(name, tmp_path)
    monkeypatch.setenv("MEMBERS", str(folder / "members"))
    x = rows(3)
    average = open_graph(folder / "packed.onnx")(x)
    assert average.shape == (3, 10)
    assert np.allclose(average.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(Members()(x), average, atol=1e-6)
    ensemble = load_version(folder / "repository" / name / "1")
    assert len(ensemble.names) == count
    again = prepare(name, tmp_path)  # over what is there
    assert len(list((again / "members").iterdir())) == count


def test_members_are_repeated_in_turn() -> None:
    assert list(repeated(unpack(onnx.load(FASHION / "ensemble.onnx")), 7)) == [
        "cnn", "tree_1", "tree_2", "tree_3", "xgb", "cnn_1", "tree_1_1",
    ]  # fmt: skip


def test_heavy_members_are_not_alike() -> None:
    first, second = heavy(2, channels=4).values()
    x = rows(2).reshape(-1, 28, 28, 1)
    answers = [
        Session(model.SerializeToString(), where="here").run(["probabilities"], {"image": x})[0]
        for model in (first, second)
    ]
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


@pytest.mark.parametrize("name", ["fashion", "heavy", "heavy-200", "members-7"])
def test_these_are_workloads(name: str) -> None:
    assert workload(name) == name


@pytest.mark.parametrize("name", ["", "none", "heavy-", "heavy-0", "members", "members-x", "../fashion"])
def test_others_are_refused_by_name(name: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"members-N; got '{name}'"):
        workload(name)
