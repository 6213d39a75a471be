from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.candidate import Candidate
from export.datasets import Split
from export.errors import CorruptLibrary, NothingFits
from export.library import ENTRY_FILE, Entry, Library, content_key, fingerprint
from export.parity import ParityReport, check_parity
from tests.export.small import TREE, digits, train

RECORD = {"curves": {"loss": [0.5, 0.25]}, "parameters": 7}


@pytest.fixture(scope="module", name="candidate")
def _candidate() -> Candidate:
    dataset = digits()
    member = train(TREE, dataset)
    model = member.to_onnx()
    return Candidate(member.name, member.framework, model, check_parity(member, model, dataset))


def _keep(library: Library, candidate: Candidate, key: str = "0" * 16) -> Entry:
    answers = {
        "validation": np.eye(10, dtype=np.float32),
        "calibration": np.full((3, 10), 0.1, dtype=np.float32),
    }
    return library.keep(key, candidate, answers, RECORD, {"model.keras": b"weights"})


def test_what_was_kept_is_found_again(tmp_path: Path, candidate: Candidate) -> None:
    library = Library(tmp_path)
    assert library.find(candidate.name, "0" * 16) is None
    kept = _keep(library, candidate)
    found = Library(tmp_path).find(candidate.name, "0" * 16)
    assert found is not None
    assert found.candidate.model == candidate.model
    assert found.candidate.parity == candidate.parity
    assert isinstance(found.candidate.parity, ParityReport)
    assert found.record == RECORD
    assert found.bytes == len(candidate.model.SerializeToString())
    assert (found.folder / "model.keras").read_bytes() == b"weights"
    np.testing.assert_array_equal(found.answers["validation"], kept.answers["validation"])
    assert library.find(candidate.name, "1" * 16) is None


def test_an_entry_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path, candidate: Candidate) -> None:
    library = Library(tmp_path)
    first = _keep(library, candidate)
    _keep(library, candidate)  # as another process might have done meanwhile
    assert list((tmp_path / "candidates").iterdir()) == [first.folder]


def test_a_damaged_entry_is_named(tmp_path: Path, candidate: Candidate) -> None:
    library = Library(tmp_path)
    folder = _keep(library, candidate).folder
    (folder / ENTRY_FILE).write_text("{")
    with pytest.raises(CorruptLibrary, match=rf"{folder}: expected a candidate, got: .*delete the folder"):
        library.find(candidate.name, "0" * 16)


def test_a_refusal_is_remembered_with_its_reason(tmp_path: Path) -> None:
    Library(tmp_path).refuse("small", "2" * 16, "member 'small': no smaller than before")
    with pytest.raises(NothingFits, match="no smaller than before"):
        Library(tmp_path).find("small", "2" * 16)


def test_a_record_is_made_once_for_the_same_content(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"figures": np.array([1.0, 2.0]), "n": len(made)}

    library = Library(tmp_path)
    assert library.record("study", {"epochs": 3}, make) == {"figures": [1.0, 2.0], "n": 1}
    assert library.record("study", {"epochs": 3}, make)["n"] == 1
    assert library.record("study", {"epochs": 4}, make)["n"] == 2
    for place in (tmp_path / "records").iterdir():
        place.write_text("[")
    with pytest.raises(CorruptLibrary, match="expected JSON"):
        library.record("study", {"epochs": 3}, make)


def test_keys_stand_for_content_whatever_its_order() -> None:
    assert content_key({"a": 1, "b": 2}, [3]) == content_key({"b": 2, "a": 1}, [3])
    assert content_key({"a": 1}) != content_key({"a": 2})
    assert content_key({"a": 1}, 1) != content_key({"a": 1}, 2)


def test_the_fingerprint_sees_rows_and_labels_but_not_those_of_the_test() -> None:
    dataset = digits()
    train_split = dataset.train
    assert fingerprint(dataset) == fingerprint(digits())
    flipped = replace(dataset, train=Split(train_split.x, train_split.y[::-1]))
    assert fingerprint(dataset) != fingerprint(flipped)
    other_test = replace(dataset, test=Split(dataset.test.x[:1], dataset.test.y[:1]))
    assert fingerprint(dataset) == fingerprint(other_test)
