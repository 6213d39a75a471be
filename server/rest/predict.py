"""`POST …/predict`: rows in, predictions out."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.rest import exchange, openapi, schemas
from server.rest.body import read_body

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
    began = asyncio.get_running_loop().time()
    headers = request.headers.raw
    engine = exchange.admit(request.app.state, headers)
    # Whatever is wrong besides: an answer before the body's end could be lost when the connection closes.
    body = await read_body(request)
    asked = exchange.Asked(headers, request.scope["query_string"], name, version)
    reply = await exchange.predict(asked, body, engine, request.app.state.decoding, began=began)
    return reply.response()
