"""`GET /v1/ensembles…`: what is served, and how it was made."""

from fastapi import APIRouter, Request

from server.engine import Engine
from server.ensemble import Ensemble
from server.fusion import STRATEGIES
from server.rest import schemas
from server.rest.state import ready_engine

router = APIRouter(tags=["ensembles"])


@router.get("/v1/ensembles", summary="List the ensembles", responses=schemas.errors(500, 503))
async def list_ensembles(request: Request) -> schemas.EnsembleList:
    engine = ready_engine(request)
    names = engine.repository.names()
    return schemas.EnsembleList(
        default=engine.default,
        ensembles=[
            schemas.EnsembleSummary(
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
    responses=schemas.errors(400, 404, 500, 503),
)
async def describe_ensemble(request: Request, name: schemas.EnsembleName) -> schemas.EnsembleDescription:
    engine = ready_engine(request)
    return _describe(engine, engine.ensemble(name))


@router.get(
    "/v1/ensembles/{name}/versions/{version}",
    summary="Describe a version of an ensemble",
    responses=schemas.errors(400, 404, 500, 503),
)
async def describe_version(
    request: Request, name: schemas.EnsembleName, version: schemas.VersionNumber
) -> schemas.EnsembleDescription:
    engine = ready_engine(request)
    return _describe(engine, engine.ensemble(name, version))


def _describe(engine: Engine, ensemble: Ensemble) -> schemas.EnsembleDescription:
    manifest = ensemble.manifest
    return schemas.EnsembleDescription(
        name=manifest.name,
        version=manifest.version,
        versions=engine.repository.versions(manifest.name),
        description=manifest.description,
        created=manifest.created,
        task=manifest.task,
        classes=manifest.classes,
        inputs=[spec.model_dump() for spec in manifest.inputs],
        max_batch_size=manifest.max_batch_size,
        default_strategy=manifest.default_strategy,
        strategies={
            name: schemas.StrategyDescription(summary=rule.summary, weights=rule.weights, calibrated=rule.calibrated)
            for name, rule in STRATEGIES.items()
        },
        members=[
            schemas.MemberDescription(
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
