"""For members that are made of another: the network `NET` of the test's module, trained and kept in a library."""

import pytest

from export.datasets import Dataset
from export.library import Entry
from export.members import Task
from tests.export.members.entries import kept, task_with
from tests.export.small import digits, train


@pytest.fixture(scope="module", name="dataset")
def _dataset() -> Dataset:
    return digits()


@pytest.fixture(scope="module", name="entry")
def _entry(request: pytest.FixtureRequest, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Entry:
    return kept(train(request.module.NET, dataset), dataset, tmp_path_factory.mktemp("library"))


@pytest.fixture(name="task")
def _task(entry: Entry, dataset: Dataset) -> Task:
    return task_with(entry, dataset)
