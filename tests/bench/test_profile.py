import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.profile import own_times

SVG = """<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" xmlns:fg="http://github.com/jonhoo/inferno">
<g><title>other</title></g><svg>
<g><title>all (1,010 samples, 100%)</title><rect y="52" fg:x="0" fg:w="1010"/></g>
<g><title>run (server/run.py:7) (600 samples, 59.41%)</title><rect y="68" fg:x="0" fg:w="600"/></g>
<g><title>run (server/run.py:9) (410 samples, 40.59%)</title><rect y="68" fg:x="600" fg:w="410"/></g>
<g><title>dumps (orjson.so) (100 samples, 9.90%)</title><rect y="84" fg:x="500" fg:w="100"/></g>
<g><title>&lt;listcomp&gt; (a.py:1) (1 samples, 0.10%)</title><rect y="84" fg:x="600" fg:w="1"/></g>
</svg></svg>"""


def test_a_functions_own_time_is_without_that_of_what_it_calls() -> None:
    own = own_times(SVG)
    assert own == {"all": 0, "run (server/run.py)": 909, "dumps (orjson.so)": 100, "<listcomp> (a.py)": 1}
    assert own.total() == 1010


@pytest.mark.parametrize(("there", "said"), [([], "wrk makes the load and is not there"), (["wrk"], "py-spy looks at")])
def test_what_it_needs_is_told_in_one_line(there: list[str], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in there:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    python = folder / "python"  # beside which there is no py-spy
    python.symlink_to(sys.executable)
    environment = {**os.environ, "PATH": str(folder), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [str(python), "-m", "bench.profile", "--out", str(tmp_path / "out.svg")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"profile: {said}")
    assert done.stderr.count("\n") == 1
