import json
import logging
import logging.config
import sys

import pytest

from server import telemetry
from server.logs import JsonFormatter, logging_config


def formatted(record: logging.LogRecord) -> dict[str, object]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry: dict[str, object] = json.loads(line)
    return entry


class TestJsonFormatter:
    def test_one_line_with_the_fields(self) -> None:
        record = logging.makeLogRecord(
            {"name": "n", "levelname": "WARNING", "msg": "a %s\nb", "args": ("x",), "created": 0.25, "rows": 3}
        )
        entry = formatted(record)
        assert entry.pop("pid") == record.process
        assert entry == {
            "time": "1970-01-01T00:00:00.250+00:00",
            "level": "warning",
            "logger": "n",
            "message": "a x\nb",
            "rows": 3,
        }

    def test_tells_the_request(self) -> None:
        token = telemetry.request_id.set("r-1")
        try:
            assert formatted(logging.makeLogRecord({}))["request_id"] == "r-1"
        finally:
            telemetry.request_id.reset(token)

    def test_traceback_is_a_field(self) -> None:
        try:
            raise KeyError("k")
        except KeyError:
            record = logging.makeLogRecord({"msg": "m", "exc_info": sys.exc_info()})
        assert str(formatted(record)["traceback"]).endswith("KeyError: 'k'")

    def test_survives_what_json_does_not_know(self) -> None:
        record = logging.makeLogRecord({"msg": "\ud800", "thing": {1}})
        assert formatted(record)["thing"] == "{1}"


@pytest.mark.parametrize(
    ("level", "servers"),
    [("debug", "DEBUG"), ("info", "WARNING"), ("warning", "WARNING"), ("error", "ERROR"), ("critical", "CRITICAL")],
)
def test_logging_config(level: str, servers: str) -> None:
    config = logging_config(level)
    assert config["root"]["level"] == level.upper()
    assert config["loggers"]["gunicorn.error"]["level"] == servers
    assert config["loggers"]["uvicorn.error"]["level"] == servers
    assert config["loggers"]["uvicorn.access"]["handlers"] == []
