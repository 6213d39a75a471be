"""`/v2`: the Open Inference Protocol. What there is, what it takes and answers, whether it is ready, and asking it."""

from importlib.metadata import version as version_of
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.errors import NotReady
from server.oip.configuration import configuration_of
from server.oip.models import EXTENSIONS, describe, find_model, is_ready, parse_version
from server.oip.statistics import counted_until_now, models_of, statistics_of
from server.rest import exchange, oip_schemas, openapi_oip, schemas
from server.rest.infer import infer
from server.rest.state import ready_engine

router = APIRouter(tags=["open inference protocol"])

_FOUND: dict[str, Any] = {"responses": schemas.errors(400, 401, 403, 404, 500, 503)}
_INFER: dict[str, Any] = {
    "response_model": oip_schemas.InferResponse,
    "responses": {200: openapi_oip.INFER_RESPONSE, **schemas.errors(400, 401, 403, 404, 500, 503)},
    "openapi_extra": openapi_oip.INFER_REQUEST,
}


@router.get("/v2", summary="Describe the server", responses=schemas.errors(401, 403, 500, 503))
@router.get("/v2/", include_in_schema=False)
async def describe_server(request: Request) -> oip_schemas.ServerMetadata:
    ready_engine(request)
    controlled = request.app.state.control is not None and request.app.state.access.has_keys
    extensions = sorted([*EXTENSIONS, *(["model_repository"] if controlled else [])])
    return oip_schemas.ServerMetadata(name="committee", version=version_of("committee"), extensions=extensions)


@router.get("/v2/models/stats", summary="Statistics of all ensembles", responses=schemas.errors(401, 403, 500, 503))
async def all_statistics(request: Request) -> oip_schemas.Statistics:
    return await _statistics(request)


@router.get("/v2/models/{model}/stats", summary="Statistics of a model, all its versions", **_FOUND)
async def model_statistics(request: Request, model: oip_schemas.ModelName) -> oip_schemas.Statistics:
    return await _statistics(request, model)


@router.get("/v2/models/{model}/versions/{version}/stats", summary="Statistics of a version of a model", **_FOUND)
async def model_version_statistics(
    request: Request, model: oip_schemas.ModelName, version: oip_schemas.ModelVersion
) -> oip_schemas.Statistics:
    return await _statistics(request, model, version)


@router.get("/v2/models/{model}", summary="Describe a model, its highest version", **_FOUND)
async def describe_model(request: Request, model: oip_schemas.ModelName) -> oip_schemas.ModelMetadata:
    return _describe(request, model)


@router.get("/v2/models/{model}/versions/{version}", summary="Describe a version of a model", **_FOUND)
async def describe_model_version(
    request: Request, model: oip_schemas.ModelName, version: oip_schemas.ModelVersion
) -> oip_schemas.ModelMetadata:
    return _describe(request, model, version)


@router.get("/v2/models/{model}/config", summary="How a model is set up, its highest version", **_FOUND)
async def model_configuration(request: Request, model: oip_schemas.ModelName) -> oip_schemas.ModelConfiguration:
    return _configuration(request, model)


@router.get("/v2/models/{model}/versions/{version}/config", summary="How a version of a model is set up", **_FOUND)
async def model_version_configuration(
    request: Request, model: oip_schemas.ModelName, version: oip_schemas.ModelVersion
) -> oip_schemas.ModelConfiguration:
    return _configuration(request, model, version)


@router.get("/v2/models/{model}/ready", summary="Whether a model can answer", **_FOUND)
async def model_ready(request: Request, model: oip_schemas.ModelName) -> oip_schemas.ModelReady:
    return _ready(request, model)


@router.get("/v2/models/{model}/versions/{version}/ready", summary="Whether a version of a model can answer", **_FOUND)
async def model_version_ready(
    request: Request, model: oip_schemas.ModelName, version: oip_schemas.ModelVersion
) -> oip_schemas.ModelReady:
    return _ready(request, model, version)


@router.post("/v2/models/{model}/infer", summary="Ask a model, its highest version", **_INFER)
async def infer_model(request: Request, model: oip_schemas.ModelName) -> Response:
    return await _infer(request, model)


@router.post("/v2/models/{model}/versions/{version}/infer", summary="Ask a version of a model", **_INFER)
async def infer_model_version(
    request: Request, model: oip_schemas.ModelName, version: oip_schemas.ModelVersion
) -> Response:
    return await _infer(request, model, version)


def _describe(request: Request, name: str, version: str = "") -> oip_schemas.ModelMetadata:
    engine = ready_engine(request)
    return oip_schemas.ModelMetadata.model_validate(describe(engine, find_model(engine, name, parse_version(version))))


def _configuration(request: Request, name: str, version: str = "") -> oip_schemas.ModelConfiguration:
    engine = ready_engine(request)
    found = configuration_of(engine, find_model(engine, name, parse_version(version)))
    return oip_schemas.ModelConfiguration.model_validate(found)


def _ready(request: Request, name: str, version: str = "") -> oip_schemas.ModelReady:
    engine = ready_engine(request)
    model = find_model(engine, name, parse_version(version))
    if not is_ready(engine, model):
        raise NotReady(f"model {model.name!r}: too few members work")
    return oip_schemas.ModelReady(name=model.name)


async def _statistics(request: Request, name: str = "", version: str = "") -> oip_schemas.Statistics:
    models = models_of(ready_engine(request), name, version)
    found = statistics_of(models, await counted_until_now())
    return oip_schemas.Statistics.model_validate({"model_stats": found})


async def _infer(request: Request, name: str, version: str = "") -> Response:
    return (await exchange.answer_to(infer, request, name, parse_version(version))).response()
