"""Gathers the numbers of a run's report: what its steps have left in its folder, and what it has published."""

import datetime
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from export.build import fuse_all, predict
from export.evaluate import evaluate
from export.fusing.replay import expected_cost, replay, sweep
from export.fusing.selective import selective
from export.library import SOFTWARE, Entry, score_alone
from export.page.analysis import POOLS, confusion, reliability, subsets
from export.recipe import EnsembleChoice
from export.run import (
    COSTS_FILE,
    FIT_FILE,
    PUBLISHED_FILE,
    SELECTION_FILE,
    Run,
    comparison_file,
    search_file,
)
from export.software import versions
from server.ensemble import Ensemble
from server.fusion import CASCADE, STACKING
from server.manifest import REPORT_FILE
from server.plan import Options
from server.repository import load_version

SHOWN_SOFTWARE = (*SOFTWARE, "numpy", "onnx", "onnxruntime", "optuna")


def collect(run: Run) -> dict[str, Any]:
    """Everything that there is to report, ready for JSON. Raises ExportError.

    Candidates and subsets are scored on the validation rows, by which they are chosen; published ensembles on the test
    rows, by which nothing is.
    """
    recipe = run.recipe
    entries = run.candidates()
    return {
        "name": recipe.name,
        "description": recipe.description,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": recipe.seed,
        "dataset": {
            "name": recipe.dataset,
            "classes": run.dataset.classes,
            "rows": {
                split: len(getattr(run.dataset, split)) for split in ("train", "validation", "calibration", "test")
            },
        },
        "software": {"python": platform.python_version(), **versions(SHOWN_SOFTWARE)},
        "machine": f"{platform.machine()}, {platform.system()}",
        "searches": [found for search in recipe.searches if (found := run.read(search_file(search.name)))],
        "activations": run.read(comparison_file("activations")) or {},
        "regularisation": run.read(comparison_file("regularisation")) or {},
        "candidates": _candidates(run, entries),
        "failed": [{"name": name, "reason": reason} for name, reason in run.failed.items()],
        "ensembles": [ensemble for choice in recipe.published if (ensemble := _ensemble(run, choice))],
    }


def _candidates(run: Run, entries: list[Entry]) -> list[dict[str, Any]]:
    costs = (run.read(COSTS_FILE) or {"us": {}})["us"]
    scored = score_alone(entries, run.dataset.validation.y)
    return [
        {
            "name": entry.name,
            "kind": (member := run.recipe.member(entry.name)).kind,
            "framework": entry.candidate.framework,
            "made_of": member.sources,
            "teachers": getattr(member, "teachers", []),
            "cost_us": costs.get(entry.name),
            "bytes": entry.bytes,
            "parameters": entry.record.get("parameters"),
            **{metric: scored.scores(entry.name)[metric].value for metric in ("accuracy", "log_loss", "ece")},
            "record": entry.record,
        }
        for entry in entries
    ]


# ---- Published ensembles --------------------------------------------------------------------------------------------


def _ensemble(run: Run, choice: EnsembleChoice) -> dict[str, Any] | None:
    """What was published last under this name, if it is still there."""
    published = run.read(f"{choice.name}/{PUBLISHED_FILE}")
    if published is None or not (folder := Path(published["folder"])).is_dir():
        return None
    ensemble = load_version(folder)
    manifest = ensemble.manifest
    report = orjson.loads((folder / REPORT_FILE).read_bytes())
    test = {f"member:{member}": found["test"] for member, found in report["members"].items()}
    test |= {strategy: found["test"] for strategy, found in report["strategies"].items()}
    default = manifest.default_strategy
    cascade = manifest.cascade
    weights = ensemble.weights(cascade.strategy if cascade and default == CASCADE else default)
    return {
        "name": choice.name,
        "version": manifest.version,
        "choice": choice.model_dump(mode="json") if run.recipe.ensembles else {},
        "selection": run.read(f"{choice.name}/{SELECTION_FILE}") or {},
        "default_strategy": default,
        "members": {
            member: float(share) for member, share in zip(ensemble.names, weights / weights.sum(), strict=True)
        },
        "costs_us": {member.name: member.cost_us or 0.0 for member in manifest.members},
        "cost_us": sum(member.cost_us or 0.0 for member in manifest.members),
        "bytes": sum(file.bytes for file in manifest.files),
        "test": test,
        "over_best_member": {strategy: found["over_best_member"] for strategy, found in report["strategies"].items()},
        "baselines": report.get("baselines", {}),
        "subsets": _subsets(run, ensemble),
        **_on_test(run, ensemble, report.get("cascade") or {}),
    }


def _subsets(run: Run, ensemble: Ensemble) -> list[dict[str, Any]]:
    """Of the pools every subset; all members by the strategies that take all."""
    validation = run.dataset.validation
    probabilities = predict(ensemble, validation.x, run.progress, "report: validation")
    found = subsets(
        ensemble.names,
        probabilities,
        validation.y,
        costs=[member.cost_us or 0.0 for member in ensemble.manifest.members],
        weights={strategy: ensemble.weights(strategy) for strategy in POOLS},
        temperatures=ensemble.temperatures,
    )
    return [*found, *_of_all(run, ensemble, probabilities)]


def _of_all(run: Run, ensemble: Ensemble, probabilities: NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    """Stacking, as it was scored out of its folds when it was fitted; and the cascade."""
    about = {"members": list(ensemble.names)}
    fitted = run.read(f"{ensemble.manifest.name}/{FIT_FILE}") or {}
    scores = fitted.get("validation", {}).get(STACKING)
    if scores and STACKING in ensemble.strategies and list(fitted["members"]) == ensemble.names:
        figures = {metric: scores[metric]["value"] for metric in ("accuracy", "log_loss")}
        cost = sum(member.cost_us or 0.0 for member in ensemble.manifest.members)
        yield {**about, "strategy": STACKING, "cost_us": cost, **figures}
    if CASCADE in ensemble.strategies:
        prediction = replay(ensemble, probabilities, Options(strategy=CASCADE))
        found = evaluate({CASCADE: prediction.fused}, run.dataset.validation.y).scores(CASCADE)
        figures = {metric: found[metric].value for metric in ("accuracy", "log_loss")}
        yield {**about, "strategy": CASCADE, "cost_us": expected_cost(prediction), **figures}


def _on_test(run: Run, ensemble: Ensemble, cascade: Mapping[str, Any]) -> Mapping[str, Any]:
    test = run.dataset.test
    answers = predict(ensemble, test.x, run.progress, "report: test")
    fused = fuse_all(ensemble, answers)
    n_classes = len(run.dataset.classes)
    return {
        "reliability": {name: reliability(answer, test.y) for name, answer in fused.items()},
        "confusion": {name: confusion(answer.labels, test.y, n_classes) for name, answer in fused.items()},
        "selective": {name: selective(answer, test.y) for name, answer in fused.items()},
        "cascade": {**cascade, "sweep": sweep(ensemble, answers, test.y)} if CASCADE in ensemble.strategies else {},
    }
