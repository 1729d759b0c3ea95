# SPDX-License-Identifier: Apache-2.0
"""A TPM 2.0 on the host (swtpm) as a board's TPM: the guest's kernel has the device, the host the keys and the state."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from machine import Machine, die_with_parent, wait_for

from qsafp_embedded.cli.ports import free_ports

__all__ = ["ChipTpm", "HostTpm"]

HOST = "10.0.2.2"  # as the guest sees the host
PROXY = (Path(__file__).parent / "guest/vtpm.py").read_bytes()


class HostTpm:
    """One TPM; like a chip it keeps its state over resets of the board, and each of them resets it."""

    key = "tpm:/dev/tpmrm0"

    def __init__(self, machine: Machine) -> None:
        """Make a blank one."""
        self._machine = machine
        self._state = machine.out / "tpm"
        shutil.rmtree(self._state, ignore_errors=True)
        self._state.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Power it with the board, now and at each start."""
        self.power()
        self._machine.at_start.append(self.power)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Cut its power."""
        self._machine.at_start.remove(self.power)
        self._off()

    def _off(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def power(self) -> None:
        """Reset it, and let the guest's kernel find it."""
        self._off()
        (port,) = free_ports(1)
        with (self._machine.out / "swtpm.log").open("ab") as log:
            words = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._state}", "--flags", "not-need-init"]
            words += ["--server", f"type=tcp,bindaddr=127.0.0.1,port={port}"]
            fate = partial(die_with_parent, signal.SIGKILL)
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=fate
            )
        wait_for(lambda: listens(port), "swtpm listens")
        self._machine.sh("modprobe tpm_vtpm_proxy")
        self._machine.put("/run/vtpm.py", PROXY)
        pid = self._machine.spawn(f"python3 -S /run/vtpm.py {HOST} {port}", "/run/vtpm.log")
        self._machine.until("test -c /dev/tpmrm0", "the guest's kernel has a TPM", pid=pid)


class ChipTpm:
    """A TPM on the machine's own bus (QEMU's tpm-tis), which Debian's kernel drives by itself."""

    key = HostTpm.key

    def __init__(self, out: Path) -> None:
        """Make a blank one, its state in a folder."""
        self._out, self._state = out, out / "tpm"
        shutil.rmtree(self._state, ignore_errors=True)
        self._state.mkdir(parents=True)
        self._socket = Path(tempfile.mkdtemp(prefix="tpm-")) / "ctrl"

    def words(self) -> tuple[str, ...]:
        """What QEMU is told."""
        chip = ("-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm")
        return ("-chardev", f"socket,id=tpm,path={self._socket}", *chip)

    def __enter__(self) -> Self:
        """Power it."""
        with (self._out / "swtpm.log").open("wb") as log:
            words = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._state}", "--ctrl", f"type=unixio,path={self._socket}"]
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
            )
        wait_for(self._socket.exists, "swtpm listens")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Cut its power."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._socket.parent)


def listens(port: int) -> bool:
    """Whether a socket of the host listens on this port; asked without connecting, since swtpm serves one client."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1] == f"0100007F:{port:04X}" and row.split()[3] == "0A" for row in rows)
