from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from export.errors import Mismatch, PublishError
from export.pack import pack
from tests.export.small_models import N, of_vectors, vectors

X, Y = (part[: N // 2] for part in vectors())
NAMES = np.array(["a", "b", "c"])


def test_a_version_is_added_only_when_said_and_only_if_it_fits(tmp_path: Path) -> None:
    model: Any = LogisticRegression().fit(X, NAMES[Y])
    pack("mine", {"m": model}, of_vectors(), out=tmp_path)
    with pytest.raises(PublishError, match="is there already, up to version 1: --version-of adds another version"):
        pack("mine", {"m": model}, of_vectors(), out=tmp_path)
    assert pack("mine", {"n": model}, of_vectors(), out=tmp_path, version_of=True) == tmp_path / "mine" / "2"
    other = of_vectors(classes=("a", "c", "b"))
    wider = [other.inputs[0].model_copy(update={"high": 99.0})]
    with pytest.raises(Mismatch) as caught:
        pack("mine", {"m": model}, replace(other, inputs=wider), out=tmp_path, version_of=True)
    assert "not as version 2: classes were a, b, c, are a, c, b; input 'x': high was None, is 99.0" in str(caught.value)
    renamed = [other.inputs[0].model_copy(update={"name": "z"})]
    with pytest.raises(Mismatch, match="input 'x' is gone; input 'z' is new"):
        pack("mine", {"m": model}, replace(of_vectors(), inputs=renamed), out=tmp_path, version_of=True)


def test_a_version_that_cannot_be_read_cannot_be_followed(tmp_path: Path) -> None:
    (tmp_path / "mine" / "1").mkdir(parents=True)
    with pytest.raises(PublishError, match=r"ensemble\.toml: cannot be compared with"):
        pack("mine", {"m": LogisticRegression().fit(X, NAMES[Y])}, of_vectors(), out=tmp_path, version_of=True)
