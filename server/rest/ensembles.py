"""`GET /v1/ensembles…`: what is served, and how it was made."""

from fastapi import APIRouter, Request

from server.engine import Engine
from server.ensemble import Ensemble
from server.fusion import BY_TASK, CASCADE
from server.manifest import CascadeSpec, Manifest
from server.rest import descriptions, schemas
from server.rest.state import ready_engine

router = APIRouter(tags=["ensembles"])


@router.get("/v1/ensembles", summary="List the ensembles", responses=schemas.errors(401, 403, 500, 503))
async def list_ensembles(request: Request) -> descriptions.EnsembleList:
    engine = ready_engine(request)
    names = engine.repository.names()
    return descriptions.EnsembleList(
        default=engine.default,
        ensembles=[
            descriptions.EnsembleSummary(
                name=name,
                versions=engine.repository.versions(name),
                description=engine.ensemble(name).manifest.description,
            )
            for name in names
        ],
    )


@router.get(
    "/v1/ensembles/{name}",
    summary="Describe an ensemble, its highest version",
    responses=schemas.errors(400, 401, 403, 404, 500, 503),
)
async def describe_ensemble(request: Request, name: schemas.EnsembleName) -> descriptions.EnsembleDescription:
    engine = ready_engine(request)
    return _describe(engine, engine.ensemble(name))


@router.get(
    "/v1/ensembles/{name}/versions/{version}",
    summary="Describe a version of an ensemble",
    responses=schemas.errors(400, 401, 403, 404, 500, 503),
)
async def describe_version(
    request: Request, name: schemas.EnsembleName, version: schemas.VersionNumber
) -> descriptions.EnsembleDescription:
    engine = ready_engine(request)
    return _describe(engine, engine.ensemble(name, version))


def _describe(engine: Engine, ensemble: Ensemble) -> descriptions.EnsembleDescription:
    manifest = ensemble.manifest
    return descriptions.EnsembleDescription(
        name=manifest.name,
        version=manifest.version,
        versions=engine.repository.versions(manifest.name),
        description=manifest.description,
        created=manifest.created,
        task=manifest.task,
        classes=manifest.classes,
        targets=manifest.targets,
        inputs=[spec.model_dump() for spec in manifest.inputs],
        max_batch_size=manifest.max_batch_size,
        default_strategy=manifest.default_strategy,
        on_failure=manifest.on_failure,
        quorum=manifest.quorum,
        strategies={name: _strategy(manifest, name) for name in ensemble.strategies},
        cascade=manifest.cascade and descriptions.CascadeDescription.model_validate(manifest.cascade.model_dump()),
        members=[
            descriptions.MemberDescription(
                name=member.name,
                framework=member.framework,
                weights=member.weights,
                temperature=member.temperature,
                cost_us=member.cost_us,
            )
            for member in manifest.members
        ],
        report=ensemble.report,
    )


def _strategy(manifest: Manifest, name: str) -> descriptions.StrategyDescription:
    """A cascade fuses by another strategy, and has its ways."""
    staged = name == CASCADE and manifest.cascade is not None
    rule = BY_TASK[manifest.task][manifest.cascade.strategy if staged and manifest.cascade else name]
    summary = (CascadeSpec.__doc__ or "").partition("\n")[0] if staged else rule.summary
    return descriptions.StrategyDescription(summary=summary, weights=rule.weights, calibrated=rule.calibrated)
