import html
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.app import create_app
from server.manifest import VECTORS_FILE
from server.settings import Settings
from tests.server.rest.client import Client
from tests.tiny import (
    linear_member,
    manifest,
    table_member,
    write_picture_ensemble,
    write_table_ensemble,
    write_version,
)


def test_page_stands_alone(client: Client) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "curl -s 'http://committee.test/predict'" in response.text
    assert """-d '{"instances": [[0, 0, 0, 0]]}'""" in html.unescape(response.text)
    assert "$" not in response.text
    links = re.findall(r'href="([^"]*)"', response.text)
    assert "v1/ensembles/tiny" in links
    for link in links:
        assert client.get(f"/{link}").status_code == 200, link


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "[::1]:80", "a-b.example"])
def test_names_the_host_that_was_asked(client: Client, host: str) -> None:
    assert f"'http://{host}/predict'" in client.get("/", headers={"Host": host}).text


@pytest.mark.parametrize("host", ["", "x'; rm -rf ~'", "a@b", "x/../y", "<b>", "[::1", "h:999999"])
def test_repeats_no_odd_host(client: Client, host: str) -> None:
    response = client.get("/", headers={"Host": host})
    assert response.status_code == 200
    assert "'http://localhost/predict'" in response.text


def test_docs_ask_no_other_host(client: Client) -> None:
    response = client.get("/docs")
    assert response.status_code == 200
    assert "//" not in re.sub(r"//.*\n", "\n", response.text.replace(":window.location", ""))
    assert "default-src 'none'" in response.headers["content-security-policy"]
    links = re.findall(r'(?:href|src)="([^"]*)"', response.text)
    assert "docs/static/swagger-ui-bundle.js" in links
    for link in links:
        assert client.get(f"/{link}").status_code == 200, link


@pytest.mark.parametrize("name", ["redoc.standalone.js", "..%2f__init__.py", "%2e%2e", "x"])
def test_only_the_files_of_the_docs(client: Client, name: str) -> None:
    assert client.get(f"/docs/static/{name}").status_code == 404


def test_favicon(client: Client) -> None:
    response = client.get("/favicon.ico")
    assert response.headers["content-type"] == "image/svg+xml"
    assert response.content.startswith(b"<svg")


@pytest.mark.parametrize("path", ["/redoc", "/docs/oauth2-redirect", "/docs/", "/predict/", "/%00"])
def test_no_other_pages(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


def command(root: Path, default: str) -> list[str]:
    """The words of the command that the page shows."""
    with Client(create_app(Settings(models=root, default=default))) as client:
        text = client.get("/").text
    found = re.search(r"<pre>(.*)</pre>", text, re.DOTALL)
    assert found
    return shlex.split(html.unescape(found[1]).replace("\\\n", ""))


def test_a_picture_is_sent_as_one(tmp_path: Path) -> None:
    write_picture_ensemble(tmp_path)
    assert command(tmp_path, "pictures")[3:] == ["-H", "Content-Type: image/png", "--data-binary", "@picture.png"]


def test_a_row_of_a_table_is_one_that_is_taken(tmp_path: Path) -> None:
    jobs = ["<b>d'or</b> & co", "cook"]
    inputs: list[dict[str, Any]] = [
        {"name": "age", "shape": [1], "low": 18.0, "missing": True},
        {"name": "job", "datatype": "BYTES", "shape": [1], "categories": jobs, "unknown": "accept"},
    ]
    write_table_ensemble(tmp_path, inputs=inputs)
    words = command(tmp_path, "people")
    body = json.loads(words[-1])
    assert body == {"instances": [{"age": 18, "job": "<b>d'or</b> & co"}]}
    with Client(create_app(Settings(models=tmp_path, default="people"))) as client:
        assert client.post("/predict", json=body).status_code == 200


def write(root: Path, member: bytes, inputs: list[dict[str, Any]], **tensors: Any) -> None:
    """A version of one member that answers thirds, whatever it reads of these tensors."""
    buffer = io.BytesIO()
    np.savez(buffer, member_probabilities=np.full((1, 2, 3), 1 / 3, dtype=np.float32), **tensors)
    files = {"m1.onnx": member, VECTORS_FILE: buffer.getvalue()}
    write_version(root, manifest(1, inputs=inputs), files)


def test_a_column_may_hold_several_numbers(tmp_path: Path) -> None:
    write_wide(tmp_path, 1, shape=[2])
    body = json.loads(command(tmp_path, "tiny")[-1])
    assert body == {"instances": [{"age": 0, "job": "text", "more 0": [-1.5, -1.5]}]}


@pytest.mark.parametrize(
    ("shape", "type_", "file"), [([1], "text/csv", "rows.csv"), ([2], "application/json", "rows.json")]
)
def test_a_wide_table_comes_from_a_file(tmp_path: Path, shape: list[int], type_: str, file: str) -> None:
    write_wide(tmp_path, 20, shape)
    words = command(tmp_path, "tiny")
    assert words[3:] == ["-H", f"Content-Type: {type_}", "--data-binary", f"@{file}"]


def write_wide(root: Path, n_more: int, shape: list[int]) -> None:
    more = [f"more {i}" for i in range(n_more)]
    inputs: list[dict[str, Any]] = [
        {"name": "age", "shape": [1]},
        {"name": "job", "datatype": "BYTES", "shape": [1]},
        *({"name": name, "shape": shape, "high": -1.5} for name in more),
    ]
    tensors = {"age": np.ones((2, 1), dtype=np.float32), "job": np.array([["cook"]] * 2)}
    tensors |= {name: -2 * np.ones((2, *shape), dtype=np.float32) for name in more}
    write(root, table_member(np.zeros((4, 3), dtype=np.float32)), inputs, **tensors)


def test_a_long_row_is_made_by_the_shell(tmp_path: Path) -> None:
    weights = np.zeros((20, 3), dtype=np.float32)
    write(tmp_path, linear_member(weights), [{"name": "X", "shape": [20]}], X=np.ones((2, 20), dtype=np.float32))
    script = " ".join(["printf", "%s", *command(tmp_path, "tiny")[-1:]])
    assert script == """printf %s {"instances": [[$(yes 0 | head -20 | paste -sd,)]]}"""
