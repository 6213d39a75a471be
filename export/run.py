"""A run: a recipe, its data, and the library; it makes what is asked for, and what that is made of, once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from onnx import ModelProto
from rich.progress import Progress

from export.candidate import Candidate
from export.compare import compare_activations, compare_regularisation
from export.datasets import load_dataset
from export.errors import InvalidRecipe, NothingFits
from export.library import SPLITS, Entry, Library, content_key, fingerprint
from export.members import Task, own_seed, train_member
from export.parity import check_parity
from export.predictor import Predictor
from export.recipe import KerasCnn, Member, Network, Recipe, SearchedCnn
from export.search import pick, run_search

COSTS_FILE = "costs.json"
SELECTION_FILE, FIT_FILE, PUBLISHED_FILE = "selection.json", "fit.json", "published.json"
"""Names in a run's folder, and in an ensemble's folder in it."""

COMPARISONS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "activations": compare_activations,
    "regularisation": compare_regularisation,
}


def search_file(name: str) -> str:
    return f"search-{name}.json"


def comparison_file(what: str) -> str:
    return f"{what}.json"


class Run:
    """What every step works on. Asking for a member trains it, unless the library has it.

    `folder` takes what is this recipe's own; `failed` are the reasons, by member, why some came to nothing.
    """

    def __init__(self, recipe: Recipe, *, work: Path, data: Path | None, progress: Progress) -> None:
        """Loads the recipe's data set, whose files are in folder `data` if not in a usual place. Raises ExportError."""
        self.recipe = recipe
        self.progress = progress
        self.dataset = load_dataset(recipe.dataset, seed=recipe.seed, folder=data)
        self.library = Library(work)
        self.folder = work / recipe.name
        self.failed: dict[str, str] = {}
        self._data_key = fingerprint(self.dataset)
        self._entries: dict[str, Entry] = {}
        self._searches: dict[str, dict[str, Any]] = {}

    # ---- Candidates -------------------------------------------------------------------------------------------------

    def candidates(self) -> list[Entry]:
        """All members of the recipe; those that came to nothing are in `failed` instead. Raises ExportError."""
        found = (self._unless_failed(member.name) for member in self.recipe.members)
        return [entry for entry in found if entry is not None]

    def entry(self, name: str) -> Entry:
        """The member of this name as a candidate. Raises ExportError; NothingFits if it comes to nothing."""
        if name not in self._entries:
            self._entries[name] = self._find_or_make(self.recipe.member(name))
        return self._entries[name]

    def _unless_failed(self, name: str) -> Entry | None:
        try:
            return self.entry(name)
        except NothingFits as exc:
            self.failed[name] = exc.message
            return None

    def _find_or_make(self, wanted: Member) -> Entry:
        member = self._settled(wanted)
        sources = {source: self.entry(source) for source in member.sources}
        seed = own_seed(member.name, self.recipe.seed)
        # Without the defaults, so that a new setting does not make everything anew.
        settings = member.model_dump(mode="json", exclude_defaults=True)
        key = content_key(settings, self._data_key, seed, [entry.key for entry in sources.values()])
        found = self.library.find(member.name, key)
        if found is not None:
            return found
        try:
            trained = train_member(member, Task(self.dataset, seed, self.progress, sources))
        except NothingFits as exc:
            self.library.refuse(member.name, key, exc.message)
            raise
        model = trained.to_onnx()
        parity = check_parity(trained, model, self.dataset)
        candidate = Candidate(trained.name, trained.framework, model, parity)
        return self.library.keep(key, candidate, self._answers(model, member.name), trained.record, trained.files)

    def _settled(self, member: Member) -> Member:
        """With the layers that a search has found, where it is for a search to find them."""
        if not isinstance(member, SearchedCnn):
            return member
        record = self._searches.get(member.search) or self.search(member.search)
        found = pick(record, max_cost_us=member.max_cost_us, member=member.name)
        own = {name: getattr(member, name) for name in Network.model_fields}
        return KerasCnn(
            kind="keras_cnn",
            layers=found.layers,
            learning_rate=found.learning_rate,
            batch_size=found.batch_size,
            **own,
        )

    def _answers(self, model: ModelProto, name: str) -> Mapping[str, NDArray[np.float32]]:
        answer = Predictor(model, name)
        return {split: answer(getattr(self.dataset, split).x) for split in SPLITS}

    # ---- Studies ----------------------------------------------------------------------------------------------------

    def search(self, name: str, *, trials: int | None = None, budget: str | None = None) -> dict[str, Any]:
        """The record of an architecture search, as far as the recipe, or `trials` and `budget`, want it.

        What earlier runs have tried counts. Raises ExportError.
        """
        search = next((search for search in self.recipe.searches if search.name == name), None)
        if search is None:
            known = ", ".join(search.name for search in self.recipe.searches) or "none"
            raise InvalidRecipe(f"expected a search of recipe {self.recipe.name!r}: {known}; got {name!r}")
        record = run_search(
            search,
            self.dataset,
            seed=own_seed(name, self.recipe.seed),
            folder=self.library.folder / "searches",
            progress=self.progress,
            trials=trials,
            budget=budget,
        )
        self._searches[name] = self.write(search_file(name), record)
        return self._searches[name]

    def compare(self, what: str) -> dict[str, Any]:
        """The record of one of `COMPARISONS`. Raises ExportError."""
        settings = getattr(self.recipe.compare, what)
        if settings is None:
            raise InvalidRecipe(f"recipe {self.recipe.name!r}: expected a table [compare.{what}], there is none")
        record = self.library.record(
            what,
            [settings.model_dump(mode="json"), self._data_key, self.recipe.seed],
            lambda: COMPARISONS[what](settings, self.dataset, seed=self.recipe.seed, progress=self.progress),
        )
        return self.write(comparison_file(what), record)

    # ---- The recipe's own folder ------------------------------------------------------------------------------------

    def write(self, name: str, contents: dict[str, Any]) -> dict[str, Any]:
        """Put a JSON file into `folder`, whole; answers its contents."""
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(".writing")
        draft.write_bytes(orjson.dumps(contents, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
        draft.rename(place)
        return contents

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of `folder`; None if there is none."""
        place = self.folder / name
        if not place.is_file():
            return None
        found: dict[str, Any] = orjson.loads(place.read_bytes())
        return found
