"""`POST …/predict`: rows in, predictions out."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from server import codec
from server.rest import options, schemas
from server.rest.body import read_json
from server.rest.state import ready_engine

router = APIRouter(tags=["predict"])

_DOCUMENTED: dict[str, Any] = {
    "response_model": schemas.PredictResponse,
    "responses": schemas.errors(400, 404, 413, 415, 500, 503),
    "openapi_extra": schemas.PREDICT_REQUEST,
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
    engine = ready_engine(request)
    # Whatever is wrong besides: an answer before the body's end could be lost when the connection closes.
    body = await read_json(request)
    ensemble = engine.ensemble(name, version)
    asked = options.parse_query(request.query_params.multi_items())
    content = codec.decode_predict(body, ensemble.manifest.inputs[0], max_rows=ensemble.manifest.max_batch_size)
    asked = options.join(asked, content.options)
    prediction = await engine.infer(ensemble, content.rows, options.for_engine(asked))
    answer = codec.encode_prediction(prediction, id=content.id, detail=asked.detail or ())
    return Response(answer, media_type="application/json")
