"""Trains what a recipe says: every member, converted and through the parity gate, then built into an ensemble."""

from pathlib import Path

from rich.progress import Progress

from export.build import build
from export.candidate import Candidate
from export.datasets import Dataset, load_dataset
from export.members import train_member
from export.parity import check_parity
from export.recipe import Member, load_recipe


def train(recipe_path: Path, *, out: Path, data: Path | None, progress: Progress) -> Path:
    """Train the recipe and publish the next version of its ensemble under `out`; returns the version's folder.

    `data` is a folder with the data set's files, if they are not in one of the usual places. Raises ExportError; then,
    and on Ctrl-C, nothing is published.
    """
    recipe = load_recipe(recipe_path)
    dataset = load_dataset(recipe.dataset, seed=recipe.seed, folder=data)
    candidates = [_train_one(member, dataset, recipe.seed, progress) for member in recipe.members]
    return build(
        candidates,
        dataset,
        name=recipe.name,
        description=recipe.description,
        max_batch_size=recipe.max_batch_size,
        out=out,
        seed=recipe.seed,
        progress=progress,
    )


def _train_one(member: Member, dataset: Dataset, seed: int, progress: Progress) -> Candidate:
    trained = train_member(member, dataset, seed=seed, progress=progress)
    model = trained.to_onnx()
    parity = check_parity(trained, model, dataset)
    return Candidate(trained.name, trained.framework, model, parity)
