from tests.server.rest.client import Client
from tests.server.test_telemetry import value


def test_counts_what_the_server_does(client: Client) -> None:
    rows = 'committee_rows_total{ensemble="tiny",strategy="median",version="1"}'
    requests = (
        'committee_http_requests_total{method="POST",route="/v1/ensembles/{name}/versions/{version}/predict",'
        'status="200"}'
    )
    before = value(rows), value(requests)
    path = "/v1/ensembles/tiny/versions/1/predict?strategy=median"
    client.post(path, json={"instances": [[1, 2, 3, 4]] * 3})
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if line.startswith("committee"))
    assert (float(lines[rows]), float(lines[requests])) == (before[0] + 3, before[1] + 1)
