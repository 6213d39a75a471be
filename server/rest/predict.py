"""`POST …/predict`: rows in, predictions out."""

import asyncio
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.codec.options import for_engine, join, parse_deadline, parse_options
from server.rest import answer, openapi, schemas
from server.rest.body import decode, read_body
from server.rest.state import ready_engine

router = APIRouter(tags=["predict"])

_DOCUMENTED: dict[str, Any] = {
    "response_model": schemas.PredictResponse,
    "responses": {200: openapi.PREDICT_RESPONSE, **schemas.errors(400, 404, 406, 413, 415, 500, 503, 504)},
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
    engine = ready_engine(request)
    # Whatever is wrong besides: an answer before the body's end could be lost when the connection closes.
    body, media = await read_body(request)
    ensemble = engine.ensemble(name, version)
    form = answer.choose_form(request.headers.getlist("accept"))
    if form is None:
        return answer.not_acceptable()
    asked = parse_options(request.query_params.multi_items(), where="query")
    at_most = parse_deadline(request.headers.getlist("x-request-deadline-ms"))
    content = await decode(request, body, media, ensemble.manifest)
    asked = join(asked, content.options)
    answer.check_options(form, asked)
    if at_most is not None:
        asked = replace(asked, deadline_ms=min(at_most, asked.deadline_ms or at_most))
    prediction = await engine.infer(ensemble, content.rows, for_engine(asked), began=began)
    return answer.encode(prediction, form, id=content.id, detail=asked.detail)
