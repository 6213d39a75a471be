"""What a browser sees: `/`, `/docs` and what they need, with no request to any other host."""

import html
import json
import re
import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import fastapi_offline
from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from server.codec.media import CSV, JSON, PNG, is_picture
from server.errors import NotFound
from server.manifest import InputSpec
from server.rest.openapi import document
from server.rest.sample import row_of, size_of
from server.rest.state import ready_engine
from server.rows import is_table

router = APIRouter(include_in_schema=False)

_DOCS_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_SHORT = 16
"""Numbers that an example may show."""
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
    host = request.headers.get("host", "")
    # Into a command that people will paste goes no host but a plain one.
    base = f"{request.scope['scheme']}://{host if _HOST.fullmatch(host) else 'localhost'}"
    key = " -H 'Authorization: Bearer …'" if request.app.state.access.has_keys else ""
    if engine.default in engine.repository.names():
        command = f"curl -s '{base}/predict'{key} \\\n  {_example(engine.ensemble().manifest.inputs)}"
    else:
        command = f"curl -s '{base}/v1/ensembles'{key}"
    text = Template(_static("index.html").decode()).substitute(
        name=html.escape(engine.default), command=html.escape(command, quote=False)
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
    """Made once of what is served: it takes a twentieth of a second, in which nobody else is answered."""
    state = request.app.state
    found = state.documents.get(state.engine.repository)
    if found is None:
        found = JSONResponse(document(request.app)).body
        if state.ready:
            state.documents[state.engine.repository] = found
    return Response(found, media_type="application/json", headers=_HEADERS)


def _example(inputs: Sequence[InputSpec]) -> str:
    """The rest of a command that asks for one row: of a table, a picture, or a tensor."""
    size = size_of(inputs)
    if is_table(inputs):
        if size > _SHORT:
            type_, file = (CSV, "rows.csv") if all(spec.shape == [1] for spec in inputs) else (JSON, "rows.json")
            return f"-H 'Content-Type: {type_}' --data-binary @{file}"
        return _posted(row_of(inputs))
    if is_picture(inputs):
        return f"-H 'Content-Type: {PNG}' --data-binary @picture.png"
    if size > _SHORT:
        return f'-H \'Content-Type: {JSON}\' \\\n  -d "{{\\"instances\\": [[$(yes 0 | head -{size} | paste -sd,)]]}}"'
    return _posted(row_of(inputs))


def _posted(row: Any) -> str:
    body = json.dumps({"instances": [row]}, ensure_ascii=False)
    return f"-H 'Content-Type: {JSON}' \\\n  -d {shlex.quote(body)}"


def _static(name: str) -> bytes:
    return (files("server.rest") / "static" / name).read_bytes()
