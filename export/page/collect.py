"""Gathers the numbers of a run's report: what its steps have left in its folder, and what it has published."""

import datetime
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from export.build import fuse_all, predict
from export.library import SOFTWARE, Entry, score_alone
from export.page.analysis import confusion, reliability, subsets
from export.recipe import EnsembleChoice
from export.run import (
    COSTS_FILE,
    PUBLISHED_FILE,
    SELECTION_FILE,
    Run,
    comparison_file,
    search_file,
)
from export.software import versions
from server.ensemble import Ensemble
from server.fusion import STRATEGIES
from server.manifest import REPORT_FILE
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
    weights = ensemble.weights(default)
    shares = np.ones(len(ensemble.names)) / len(ensemble.names) if weights is None else weights
    return {
        "name": choice.name,
        "version": manifest.version,
        "choice": choice.model_dump(mode="json") if run.recipe.ensembles else {},
        "selection": run.read(f"{choice.name}/{SELECTION_FILE}") or {},
        "default_strategy": default,
        "members": {member: float(share) for member, share in zip(ensemble.names, shares, strict=True)},
        "cost_us": sum(member.cost_us or 0.0 for member in manifest.members),
        "bytes": sum(file.bytes for file in manifest.files),
        "test": test,
        "over_best_member": {strategy: found["over_best_member"] for strategy, found in report["strategies"].items()},
        "baselines": report.get("baselines", {}),
        "subsets": _subsets(run, ensemble),
        **_on_test(run, ensemble),
    }


def _subsets(run: Run, ensemble: Ensemble) -> list[dict[str, Any]]:
    validation = run.dataset.validation
    return subsets(
        ensemble.names,
        predict(ensemble, validation.x, run.progress, "report: validation"),
        validation.y,
        costs=[member.cost_us or 0.0 for member in ensemble.manifest.members],
        weights={strategy: ensemble.weights(strategy) for strategy in STRATEGIES},
        temperatures=ensemble.temperatures,
    )


def _on_test(run: Run, ensemble: Ensemble) -> Mapping[str, Any]:
    test = run.dataset.test
    fused = fuse_all(ensemble, predict(ensemble, test.x, run.progress, "report: test"))
    n_classes = len(run.dataset.classes)
    return {
        "reliability": {name: reliability(answer, test.y) for name, answer in fused.items()},
        "confusion": {name: confusion(answer.labels, test.y, n_classes) for name, answer in fused.items()},
    }
