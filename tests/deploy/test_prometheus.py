"""The rules for Prometheus name what a server really shows, and every metric and alert is explained."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server import errors
from server.meters import REGISTRY
from server.prediction import Reason
from tests import faulty, tiny
from tests.faulty import NAN
from tests.server.processes import running, until

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
CASES = Path(__file__).with_name("alert_cases.yml")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
TARGET = {"job", "instance"}
"""What Prometheus itself says of where a metric comes from."""
MADE_BY_PROMETHEUS = {"up": TARGET}

RULES: list[dict[str, Any]] = [
    rule
    for file in ("rules.yml", "alerts.yml")
    for group in yaml.safe_load((FOLDER / file).read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in RULES if "record" in rule}
SELECTOR = re.compile(r"\b(up|committee[:_][\w:]*)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(by|without|on|ignoring)\s*\(([^)]*)\)")
CODES = {
    value.code
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.CommitteeError)
}
VALUES: Mapping[str, set[str]] = {
    "committee_errors_total code": CODES,
    "committee:errors:ratio_rate5m code": CODES,
    "committee:member_requests:ratio_rate5m outcome": {"answered", *get_args(Reason)},
    "committee_inference_duration_seconds_bucket outcome": {"answered", "cancelled", *CODES},
    "committee_model_changes_total outcome": {"done", "unchanged", "refused", "conflict", "failed"},
}
"""What a label of a metric may say, where the rules choose by it."""
STRICT = """
import sys
from server import cli, worker
load = worker.Worker.load_wsgi
def load_strictly(self):
    from server import engine
    make = engine.Members
    engine.Members = lambda **known: make(**{**known, "own_rows": known["own_rows"][:0]})
    load(self)
worker.Worker.load_wsgi = load_strictly
sys.exit(cli.run(sys.argv[1:]))
"""
"""A server in which a member that fails over a row is always to blame, so that its circuit opens."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """By the name of each sample that a server shows once it has seen everything, its labels."""
    folder = tmp_path_factory.mktemp("served")
    stages = tiny.cascade(["m1"], ["m2", "m3"])
    faulty.write(folder / "models", cascade=stages)
    tiny.write_ensemble(folder / "models")
    new = ("keys", "new", "--name", "ops", "--scopes", "admin,predict")
    made = subprocess.run([sys.executable, "-m", "server", *new], capture_output=True, text=True, check=True)
    (folder / "keys").write_text(made.stdout)
    key: Any = {"X-Api-Key": made.stderr.split()[-1]}
    options = ("--workers", "1", "--breaker-failures", "1", "--model-control", "explicit")
    with running(folder, *options, "--keys-file", str(folder / "keys"), program=("-c", STRICT)) as server:

        def ask(path: str, body: object) -> None:
            server.request("POST", path, json.dumps(body).encode(), **key)

        instances = {"instances": faulty.rows(8).tolist()}
        ask("/v1/ensembles/faulty/predict?strategy=cascade", instances)
        ask("/v1/ensembles/faulty/predict?abstain_below=1", instances)
        ask("/v1/ensembles/faulty/predict", {"instances": faulty.rows(1, NAN).tolist()})
        ask("/predict", {"instances": "none"})
        ask("/v2/repository/models/tiny/unload", {})
        until(lambda: server.metrics().get('committee_errors_total{code="invalid_input"}') == 1)
        text = server.request("GET", "/metrics")[1].decode()
        assert server.stop() == 0
    found: dict[str, set[str]] = {**MADE_BY_PROMETHEUS}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update({*sample.labels, *TARGET})
    return found


def _labels(name: str, shown: Mapping[str, set[str]]) -> set[str]:
    """Of a metric, or, at most, of a recorded rule."""
    if name in RECORDED:
        return TARGET.union(*(_labels(source, shown) for source, _ in SELECTOR.findall(RECORDED[name]["expr"])))
    assert name in shown, f"no server shows {name}"
    return shown[name]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_name_metrics_and_labels_that_there_are(rule: dict[str, Any], shown: dict[str, set[str]]) -> None:
    selectors = SELECTOR.findall(rule["expr"])
    assert selectors or rule["record"] == "committee:objective_seconds"
    known = TARGET.union(*(_labels(name, shown) for name, _ in selectors))
    for name, matchers in selectors:
        for label, how, value in MATCHER.findall(matchers):
            assert label in _labels(name, shown), f"{name} has no label {label}"
            if (chosen := VALUES.get(f"{name} {label}")) is not None:
                assert set(value.split("|") if how == "=~" else [value]) <= chosen
    for _, labels in GROUPING.findall(rule["expr"]):
        assert set(re.findall(r"\w+", labels)) <= known
    texts = json.dumps(rule.get("annotations", {}))
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= known


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_say_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    assert f"\n### {name}\n" in OPERATIONS


def test_no_alert_is_explained_that_there_is_not() -> None:
    assert set(re.findall(r"^### (Committee\w+)$", OPERATIONS, re.MULTILINE)) == set(ALERTS)


def test_every_metric_is_explained() -> None:
    table = OPERATIONS.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    explained = set(re.findall(r"`(committee_\w+)`", table))
    counters = {family.name + "_total" for family in REGISTRY.collect() if family.type == "counter"}
    others = {family.name for family in REGISTRY.collect() if family.type != "counter"}
    assert counters | others <= explained


def test_every_recorded_rule_is_compared() -> None:
    used = {name for rule in ALERTS.values() for name, _ in SELECTOR.findall(rule["expr"])}
    assert set(RECORDED) <= used


def test_every_alert_has_a_case() -> None:
    assert set(ALERTS) <= set(re.findall(r"\bCommittee\w+", CASES.read_text()))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_the_cases() -> None:
    for command in (["check", "rules", *map(str, sorted(FOLDER.iterdir()))], ["test", "rules", str(CASES)]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
