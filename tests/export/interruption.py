"""Ctrl-C on the real command, at a moment that its progress shows."""

import os
import signal
import subprocess
import sys


def interrupt(arguments: list[str], *, when: str) -> tuple[int, str]:
    """Start `python -m export`, send SIGINT once `when` stands on its stderr; its status, and what it wrote after."""
    # Wide and interactive, so that the bars come as they move and not once at the end.
    environment = {**os.environ, "COLUMNS": "100", "TTY_COMPATIBLE": "1"}
    command = [sys.executable, "-m", "export", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    seen = ""
    while when not in seen:
        read = process.stderr.read(1)
        assert read, f"it ended before that: {seen}"
        seen += read
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    return process.returncode, rest
