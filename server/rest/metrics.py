"""`GET /metrics`, in Prometheus' text format, summed over the workers."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from server import telemetry

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics", summary="Prometheus metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
)
async def metrics() -> Response:
    telemetry.flush()  # in the thread that counts
    text, media_type = await run_in_threadpool(telemetry.exposition)
    return Response(text, headers={"Content-Type": media_type})
