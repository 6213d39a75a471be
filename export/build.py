"""Builds an ensemble of converted members: packs them, fits their fusion, scores it, and publishes it.

What each split is for: *validation* fits the weights and chooses the default strategy, *calibration* fits the
temperatures and chooses between two fits of the weights, both fit the final estimator and the cascade, *test* is looked
at once, for the report.
"""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from rich.progress import Progress

from export import card, report
from export.candidate import Candidate
from export.costs import measure_costs
from export.datasets import Dataset
from export.errors import Mismatch
from export.evaluate import Evaluation, evaluate
from export.fusing.baselines import compare_with_baselines
from export.fusing.cascade import TOLERANCE
from export.fusing.fit import Fitted, fit_fusion
from export.fusing.replay import replay
from export.packed import MEMBER_PROBABILITIES, STACKED, check_packed, pack_graphs
from export.publish import list_files, make_vectors, next_version, publish
from server.ensemble import Ensemble
from server.fusion import CASCADE, Fused, by_highest
from server.manifest import REPLAY_TOLERANCE, VECTORS_FILE, FinalEstimatorSpec, Manifest, MemberSpec
from server.plan import Options
from server.rows import Rows, is_table

PACKED_FILE = "ensemble.onnx"
BATCH = 64
"""Rows a call."""
N_VECTORS = 16
N_PROOF_ROWS = 256
LOSSY_TOLERANCE = 0.05
"""Of a quantised member's probabilities, when another processor replays them."""


def build(
    candidates: Sequence[Candidate],
    dataset: Dataset,
    *,
    name: str,
    description: str,
    max_batch_size: int,
    out: Path,
    seed: int,
    progress: Progress,
    fitted: Fitted | None = None,
    cascade_tolerance: float = TOLERANCE,
    notes: Sequence[str] = (),
) -> Path:
    """Publish the candidates as the next version of ensemble `name` under `out`; returns its folder.

    `fitted` is what `fit_fusion` found for these very candidates, in their order; None fits them here, a cascade within
    `cascade_tolerance`. `notes` are for the report. A data set without test rows has no labels: then nothing is fitted
    or scored, all members weigh the same, and there is no report. Raises Mismatch, PackingError, ParityError or
    PublishError; then nothing is published.
    """
    names = [candidate.name for candidate in candidates]
    if fitted is not None and fitted.names != names:
        raise Mismatch(f"ensemble {name!r}: expected a fit of {', '.join(names)}, got one of {', '.join(fitted.names)}")
    models = {candidate.name: candidate.model for candidate in candidates}
    files = {PACKED_FILE: _pack(models, dataset)}
    draft = Manifest(
        name=name,
        version=next_version(out, name),
        description=description if len(dataset.test) else f"{description} {card.NOTHING_MEASURED}".strip(),
        max_batch_size=max_batch_size,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        classes=dataset.classes,
        inputs=dataset.inputs,
        members=[_member(candidate, gate) for gate, candidate in enumerate(candidates)],
        files=list_files(files),
    )
    ensemble = Ensemble(draft, files, where=f"{name} (being built)")
    costs = measure_costs(models, dataset.validation.x)
    members = [spec.model_copy(update={"cost_us": round(costs[spec.name], 2)}) for spec in draft.members]
    timed = draft.model_copy(update={"members": members})
    if len(dataset.test):
        answers = {
            split: predict(ensemble, getattr(dataset, split).x, progress, f"predict {split}")
            for split in ("validation", "calibration", "test")
        }
        fitted = fitted or _fit(timed, answers, dataset, cascade_tolerance)
        if fitted.stacking is not None:
            files = {PACKED_FILE: _pack(models, dataset, fitted.stacking.model)}
        manifest = _with_fit(timed, fitted)
        ensemble = Ensemble(manifest, files, where=ensemble.where)
        texts = _scored(ensemble, answers, candidates, dataset, fitted, seed, notes)
    else:
        manifest, texts = timed, {card.CARD_FILE: card.render_unmeasured(timed, candidates).encode()}
    rows = _vector_rows(dataset)
    files |= {VECTORS_FILE: make_vectors(dataset.inputs, rows, ensemble.run(rows)), **texts}
    return publish(out, manifest.model_copy(update={"files": list_files(files)}), files)


def _pack(models: Mapping[str, ModelProto], dataset: Dataset, final_estimator: ModelProto | None = None) -> bytes:
    """The packed graph, proven on rows of the validation split."""
    packed = pack_graphs(models, dataset.inputs, len(dataset.classes), final_estimator)
    check_packed(packed, models, dataset.validation.x[:N_PROOF_ROWS], final_estimator)
    return bytes(packed.SerializeToString())


def _fit(
    draft: Manifest, answers: Mapping[str, NDArray[np.float32]], dataset: Dataset, cascade_tolerance: float
) -> Fitted:
    return fit_fusion(
        [spec.name for spec in draft.members],
        answers["validation"],
        dataset.validation.y,
        answers["calibration"],
        dataset.calibration.y,
        costs_us=[spec.cost_us or 0.0 for spec in draft.members],
        cascade_tolerance=cascade_tolerance,
    )


def _with_fit(draft: Manifest, fitted: Fitted) -> Manifest:
    members = [
        spec.model_copy(update={"weights": fitted.weights[spec.name], "temperature": fitted.temperatures[spec.name]})
        for spec in draft.members
    ]
    estimator = fitted.stacking and FinalEstimatorSpec(file=PACKED_FILE, output=STACKED)
    return draft.model_copy(
        update={
            "members": members,
            "default_strategy": fitted.default_strategy,
            "final_estimator": estimator,
            "cascade": fitted.cascade,
        }
    )


def _scored(
    ensemble: Ensemble,
    answers: Mapping[str, NDArray[np.float32]],
    candidates: Sequence[Candidate],
    dataset: Dataset,
    fitted: Fitted,
    seed: int,
    notes: Sequence[str],
) -> dict[str, bytes]:
    """The report and the card."""
    fused = fuse_all(ensemble, answers["test"])
    scored = evaluate(fused, dataset.test.y, seed=seed)
    baselines = compare_with_baselines(
        fused[fitted.default_strategy],
        # All the rows that ours have learned from.
        np.concatenate([answers["validation"], answers["calibration"]], axis=1),
        np.concatenate([dataset.validation.y, dataset.calibration.y]),
        answers["test"],
        dataset.test.y,
        seed=seed,
    )
    contents = report.make_report(
        ensemble.manifest,
        candidates,
        fitted,
        scored,
        dataset,
        baselines,
        cascade=_cascade(ensemble, answers, dataset, scored),
        default=fused[fitted.default_strategy],
        seed=seed,
        notes=notes,
    )
    return {report.REPORT_FILE: report.to_json(contents), card.CARD_FILE: card.render(contents).encode()}


def _cascade(
    ensemble: Ensemble, answers: Mapping[str, NDArray[np.float32]], dataset: Dataset, test: Evaluation
) -> dict[str, Any] | None:
    if CASCADE not in ensemble.strategies:
        return None
    validation, on_test = (
        replay(ensemble, answers[split], Options(strategy=CASCADE)) for split in ("validation", "test")
    )
    losses = evaluate({CASCADE: validation.fused}, dataset.validation.y).scores(CASCADE)["log_loss"]
    return report.cascade_on_test(on_test, test, validation_log_loss=losses.value)


def predict(ensemble: Ensemble, rows: Rows, progress: Progress, what: str) -> NDArray[np.float32]:
    """What the members answer, `(n_members, n, n_classes)`, in batches of `BATCH`."""
    batches = progress.track([rows[start : start + BATCH] for start in range(0, len(rows), BATCH)], description=what)
    return np.concatenate([ensemble.run(batch) for batch in batches], axis=1)


def fuse_all(ensemble: Ensemble, probabilities: NDArray[np.float32]) -> dict[str, Fused]:
    """Every member's own answer, by `member:<name>`, and every strategy's that the ensemble offers, by its name.

    As they would be served: with the manifest's weights, temperatures, final estimator and cascade.
    """
    alone = {f"member:{name}": by_highest(answer) for name, answer in zip(ensemble.names, probabilities, strict=True)}
    fused = {
        strategy: replay(ensemble, probabilities, Options(strategy=strategy)).fused for strategy in ensemble.strategies
    }
    return alone | fused


def _member(candidate: Candidate, gate: int) -> MemberSpec:
    return MemberSpec(
        name=candidate.name,
        framework=candidate.framework,
        file=PACKED_FILE,
        output=MEMBER_PROBABILITIES,
        gate=gate,
        tolerance=LOSSY_TOLERANCE if candidate.parity.lossy else REPLAY_TOLERANCE,
    )


def _vector_rows(dataset: Dataset) -> Rows:
    """Real rows of the validation split, and, of bounded numbers, two that no photograph is: all low, all high."""
    rows, spec = dataset.validation.x[:N_VECTORS], dataset.inputs[0]
    if is_table(dataset.inputs) or spec.low is None or spec.high is None:
        return rows
    return np.concatenate([rows, np.full_like(rows[:1], spec.low), np.full_like(rows[:1], spec.high)])
