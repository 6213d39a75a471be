"""What a browser sees: `/`, `/docs` and what they need, with no request to any other host."""

import html
import math
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from server.errors import NotFound
from server.rest import schemas
from server.rest.state import ready_engine

router = APIRouter(include_in_schema=False)

_DOCS_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_FRAMES = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_PAGE_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; {_FRAMES}"
# Swagger UI's page starts it with an inline script, and it writes styles and data: images.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    f"img-src 'self' data:; connect-src 'self'; {_FRAMES}"
)


@router.get("/")
async def page(request: Request) -> Response:
    engine = ready_engine(request)
    size = math.prod(engine.ensemble().manifest.inputs[0].shape)
    host = request.headers.get("host", "")
    text = Template(_static("index.html").decode()).substitute(
        name=html.escape(engine.default),
        # Into a command that people will paste goes no host but a plain one.
        url=f"{request.scope['scheme']}://{host if _HOST.fullmatch(host) else 'localhost'}/predict",
        row=", ".join(["0"] * size) if size <= 16 else f"$(yes 0 | head -{size} | paste -sd,)",
    )
    return HTMLResponse(text, headers={**_HEADERS, "Content-Security-Policy": _PAGE_POLICY})


@router.get("/favicon.ico")
async def favicon() -> Response:
    return Response(
        _static("favicon.svg"),
        media_type="image/svg+xml",
        headers={**_HEADERS, "Cache-Control": "max-age=86400", "Content-Security-Policy": "default-src 'none'"},
    )


@router.get("/docs")
async def docs(request: Request) -> Response:
    response = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Committee",
        swagger_js_url="docs/static/swagger-ui-bundle.js",
        swagger_css_url="docs/static/swagger-ui.css",
        swagger_favicon_url="favicon.ico",
    )
    response.headers.update({**_HEADERS, "Content-Security-Policy": _DOCS_POLICY})
    return response


@router.get("/docs/static/{name}")
async def docs_file(name: str) -> Response:
    """The files of Swagger UI, which FastAPI itself would have the browser fetch from another host."""
    if name not in _DOCS_FILES:
        raise NotFound(f"expected one of {', '.join(_DOCS_FILES)}; got another name")
    folder = Path(fastapi_offline.__file__).parent / "static"
    return FileResponse(folder / name, headers={**_HEADERS, "Cache-Control": "max-age=3600"})


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    return JSONResponse(document(request.app), headers=_HEADERS)


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the app's routes."""
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schema["components"]["schemas"].update(schemas.request_definitions())
    for operations in schema["paths"].values():
        for operation in operations.values():
            # FastAPI's own answer to a malformed path, which this server answers with 400.
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
    return schema


def _static(name: str) -> bytes:
    return (files("server.rest") / "static" / name).read_bytes()
