"""`GET /metrics`, in Prometheus' text format, summed over the workers."""

from fastapi import APIRouter
from starlette.responses import Response

from server import telemetry

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics", summary="Prometheus metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
)
def metrics() -> Response:
    text, media_type = telemetry.exposition()
    return Response(text, headers={"Content-Type": media_type})
