import re

import pytest

from tests.server.rest.client import Client


def test_page_stands_alone(client: Client) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "curl -s 'http://committee.test/predict'" in response.text
    assert "[[0, 0, 0, 0]]" in response.text
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
