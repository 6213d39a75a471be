"""`POST …/predict`: rows in, predictions out."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.rest import exchange, openapi, schemas

router = APIRouter(tags=["predict"])

_DOCUMENTED: dict[str, Any] = {
    "response_model": schemas.PredictResponse,
    "responses": {200: openapi.PREDICT_RESPONSE, **schemas.errors(400, 401, 403, 404, 406, 413, 415, 500, 503, 504)},
    "openapi_extra": openapi.PREDICT_REQUEST,
}


@router.post("/predict", summary="Ask the default ensemble", **_DOCUMENTED)
async def predict(request: Request) -> Response:
    return await _predict(request)


@router.post("/v1/ensembles/{name}/predict", summary="Ask an ensemble, its highest version", **_DOCUMENTED)
async def predict_ensemble(request: Request, name: schemas.EnsembleName) -> Response:
    return await _predict(request, name)


@router.post("/v1/ensembles/{name}/versions/{version}/predict", summary="Ask a version of an ensemble", **_DOCUMENTED)
async def predict_version(request: Request, name: schemas.EnsembleName, version: schemas.VersionNumber) -> Response:
    return await _predict(request, name, version)


async def _predict(request: Request, name: str | None = None, version: int | None = None) -> Response:
    return (await exchange.answer_to(exchange.predict, request, name, version)).response()
