"""`/v1/models`: TensorFlow Serving's REST form, over the same models as `/v2`."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.errors import NotFound, NotReady
from server.oip.models import TensorMetadata, describe, find_model, is_ready, parse_version, versions_of
from server.rest import exchange, oip_schemas, openapi_oip, schemas, tf_schemas
from server.rest.state import ready_engine
from server.rest.tf_predict import tf_predict

router = APIRouter(tags=["tensorflow serving"])

TYPES = {"FP32": "DT_FLOAT", "BYTES": "DT_STRING"}
"""What TensorFlow calls the datatypes that inputs and answers have."""

_FOUND: dict[str, Any] = {"responses": schemas.errors(400, 401, 403, 404, 500, 503)}
_PREDICT: dict[str, Any] = {
    "response_model": tf_schemas.TfPredictResponse,
    "responses": schemas.errors(400, 401, 403, 404, 413, 500, 503, 504),
    "openapi_extra": openapi_oip.TF_REQUEST,
}


@router.post("/v1/models/{model}:predict", summary="Ask a model, its highest version", **_PREDICT)
async def predict(request: Request, model: oip_schemas.ModelName) -> Response:
    return await _predict(request, model)


@router.post("/v1/models/{model}/versions/{version}:predict", summary="Ask a version of a model", **_PREDICT)
async def predict_version(
    request: Request, model: oip_schemas.ModelName, version: oip_schemas.ModelVersion
) -> Response:
    return await _predict(request, model, version)


@router.api_route("/v1/models/{model}/labels/{label:path}", methods=["GET", "POST"], include_in_schema=False)
async def no_labels(request: Request, model: str, label: str) -> Response:
    ready_engine(request)
    raise NotFound("versions have no labels here; expected /v1/models/{model}/versions/{version}")


@router.get("/v1/models/{model}", summary="Which versions of a model can answer", **_FOUND)
async def status(request: Request, model: oip_schemas.ModelName) -> tf_schemas.ModelStatus:
    return _status(request, model)


@router.get("/v1/models/{model}/versions/{version}", summary="Whether a version of a model can answer", **_FOUND)
async def status_of_version(
    request: Request, model: oip_schemas.ModelName, version: oip_schemas.ModelVersion
) -> tf_schemas.ModelStatus:
    return _status(request, model, version)


@router.get("/v1/models/{model}/metadata", summary="Describe a model, its highest version", **_FOUND)
async def metadata(request: Request, model: oip_schemas.ModelName) -> tf_schemas.SignatureMetadata:
    return _metadata(request, model)


@router.get("/v1/models/{model}/versions/{version}/metadata", summary="Describe a version of a model", **_FOUND)
async def metadata_of_version(
    request: Request, model: oip_schemas.ModelName, version: oip_schemas.ModelVersion
) -> tf_schemas.SignatureMetadata:
    return _metadata(request, model, version)


async def _predict(request: Request, name: str, version: str = "") -> Response:
    return (await exchange.answer_to(tf_predict, request, name, parse_version(version))).response()


def _status(request: Request, name: str, version: str = "") -> tf_schemas.ModelStatus:
    engine = ready_engine(request)
    model = find_model(engine, name, parse_version(version))
    versions = [model] if version else versions_of(engine, model)[::-1]
    able = [tf_schemas.VersionStatus(version=one.version) for one in versions if is_ready(engine, one)]
    if not able:
        raise NotReady(f"model {model.name!r}: too few members work")
    return tf_schemas.ModelStatus(name=model.name, model_version_status=able)


def _metadata(request: Request, name: str, version: str = "") -> tf_schemas.SignatureMetadata:
    engine = ready_engine(request)
    model = find_model(engine, name, parse_version(version))
    described = describe(engine, model)
    signature = {
        "inputs": {tensor.name: _tensor_info(tensor) for tensor in described.inputs},
        "outputs": {tensor.name: _tensor_info(tensor) for tensor in described.outputs[:1]},
        "method_name": "tensorflow/serving/predict",
    }
    return tf_schemas.SignatureMetadata(
        model_spec=tf_schemas.ModelSpec(name=model.name, version=model.version),
        metadata={"signature_def": {"signature_def": {tf_schemas.SIGNATURE: signature}}},
    )


def _tensor_info(tensor: TensorMetadata) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in tensor.shape]
    shape = {"dim": dims, "unknown_rank": False}
    return {"dtype": TYPES[tensor.datatype], "tensor_shape": shape, "name": tensor.name}
