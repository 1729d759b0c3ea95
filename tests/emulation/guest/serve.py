# SPDX-License-Identifier: Apache-2.0
"""In the guest: do what the host asks over a byte channel.

A request is one line of JSON.  ``{"id", "run": [words], "timeout": s, "env": {…}}`` answers ``{"id", "code", "out", "err"}`` with output
in base64, code None after the timeout; ``{"id", "put": path, "data": base64, "mode"}`` writes a file.  Requests run side by side.
The first line of every start is ``{"ready": boot id}``.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import signal
import subprocess
import threading
import tty
from typing import Any

LOCK = threading.Lock()


def say(fd: int, answer: dict[str, Any]) -> None:
    """Write one line; whole, whichever threads answer at once."""
    data = json.dumps(answer).encode() + b"\n"
    with LOCK:
        while data:
            data = data[os.write(fd, data) :]


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a program in a session of its own; after the timeout the session's first group is killed."""
    env = {**os.environ, **request.get("env", {})}
    pipe = subprocess.PIPE
    with subprocess.Popen(request["run"], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=env, start_new_session=True) as child:
        late = False
        try:
            out, err = child.communicate(timeout=request["timeout"])
        except subprocess.TimeoutExpired:
            late = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
    code = None if late else child.returncode
    return {"code": code, "out": base64.b64encode(out).decode(), "err": base64.b64encode(err).decode()}


def put(request: dict[str, Any]) -> dict[str, Any]:
    """Write a file whole, and its folders."""
    path = request["put"]
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 (pathlib costs a slow start here)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, request["mode"])
    with os.fdopen(fd, "wb") as file:
        file.write(base64.b64decode(request["data"]))
    return {"code": 0, "out": "", "err": ""}


def answer(fd: int, request: dict[str, Any]) -> None:
    """Do it, and say so; what could not even start has code 127."""
    try:
        done = put(request) if "put" in request else run(request)
    except OSError as why:
        done = {"code": 127, "out": "", "err": base64.b64encode(str(why).encode()).decode()}
    say(fd, {"id": request["id"], **done})


def settings() -> dict[str, str]:
    """What board.conf says."""
    with open("/etc/board/board.conf") as file:  # noqa: PTH123
        return dict(line.rstrip("\n").replace('"', "").split("=", 1) for line in file if "=" in line)


def main() -> None:
    """Serve until the channel breaks; init starts it again."""
    os.environ.update({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/var/tmp", "LC_ALL": "C.UTF-8"})
    (path,) = glob.glob(settings()["CHANNEL"])  # noqa: PTH207
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    if os.isatty(fd):
        tty.setraw(fd)
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123
        say(fd, {"ready": file.read().strip()})
    waiting = b""
    while chunk := os.read(fd, 65536):
        *lines, waiting = (waiting + chunk).split(b"\n")
        for line in filter(None, lines):
            threading.Thread(target=answer, args=(fd, json.loads(line)), daemon=True).start()


if __name__ == "__main__":
    main()
