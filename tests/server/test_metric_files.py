import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from server import metric_files
from server.metric_files import HEIR, SIZES

GONE = 1 << 20
"""The process id of one that is gone."""


def write(path: Path, **values: float) -> None:
    file = MmapedDict(str(path))  # type: ignore[no-untyped-call]
    for key, value in values.items():
        file.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]


def read(path: Path) -> dict[str, float]:
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(path)}  # type: ignore[no-untyped-call]


def own(folder: Path, kind: str) -> Path:
    return folder / f"{kind}_{os.getpid()}.db"


def room(path: Path) -> int:
    """Bytes that the file system has given to it."""
    return path.stat().st_blocks * 512


def test_there_is_room_before_anything_is_counted(tmp_path: Path) -> None:
    metric_files.reserve(tmp_path)
    for kind, size in SIZES.items():
        assert own(tmp_path, kind).stat().st_size == size
        assert room(own(tmp_path, kind)) >= size
    write(own(tmp_path, "counter"), a=1)
    assert read(own(tmp_path, "counter")) == {"a": 1}
    assert {path.suffix for path in tmp_path.iterdir()} == {".db"}


def test_they_are_what_the_server_counts_by(tmp_path: Path) -> None:
    """Of every metric that there is; none is made by prometheus_client, without room."""
    code = """
import os, sys
from pathlib import Path
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
from server import metric_files, meters
metric_files.reserve(Path(sys.argv[1]))
for metric in list(meters.REGISTRY._collector_to_names):
    if metric._labelnames:
        metric.labels(*"abcdef"[: len(metric._labelnames)])
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert {path.name.rpartition("_")[0] for path in tmp_path.glob("*.db")} == set(SIZES)


def test_room_is_made_for_twice_as_much_as_there_is(tmp_path: Path) -> None:
    metric_files.make_room(tmp_path)  # nothing is there yet
    metric_files.reserve(tmp_path)
    path, size = own(tmp_path, "counter"), SIZES["counter"]
    write(path, **{f"{number:0>100}": 1.0 for number in range(size // 400)})
    metric_files.make_room(tmp_path)
    assert path.stat().st_size == size
    write(path, **{f"{number:0>100}": 1.0 for number in range(size // 200)})
    metric_files.make_room(tmp_path)
    assert room(path) >= path.stat().st_size == 2 * size
    metric_files.make_room(tmp_path)
    assert path.stat().st_size == 2 * size


def test_where_there_is_no_room_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        metric_files.reserve(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_those_have_counted_that_are_gone_is_added_up(tmp_path: Path) -> None:
    for pid in (GONE, GONE + 1):
        write(tmp_path / f"counter_{pid}.db", a=1, b=2)
        write(tmp_path / f"histogram_{pid}.db", c=pid)
        write(tmp_path / f"gauge_max_{pid}.db", d=pid)
        write(tmp_path / f"gauge_livesum_{pid}.db", e=3)
        assert metric_files.inherit(tmp_path, pid)
    assert read(tmp_path / f"counter_{HEIR}.db") == {"a": 2, "b": 4}
    assert read(tmp_path / f"histogram_{HEIR}.db") == {"c": 2 * GONE + 1}
    assert read(tmp_path / f"gauge_max_{HEIR}.db") == {"d": GONE + 1}
    assert len(list(tmp_path.glob("*.db"))) == 3
    assert metric_files.inherit(tmp_path, GONE + 2)  # who has counted nothing


def test_while_somebody_reads_nothing_is_added(tmp_path: Path) -> None:
    write(tmp_path / f"counter_{GONE}.db", a=1)
    with metric_files.reading(tmp_path), metric_files.reading(tmp_path):
        assert not metric_files.inherit(tmp_path, GONE)
        assert [path.name for path in tmp_path.glob("*.db")] == [f"counter_{GONE}.db"]
    assert metric_files.inherit(tmp_path, GONE)


def test_where_there_is_no_room_for_an_heir_all_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    write(tmp_path / f"counter_{GONE}.db", a=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert not metric_files.inherit(tmp_path, GONE)
    assert [path.name for path in tmp_path.glob("*.*b")] == [f"counter_{GONE}.db"]
    assert metric_files.inherit(tmp_path, GONE)
    assert read(tmp_path / f"counter_{HEIR}.db") == {"a": 1}
