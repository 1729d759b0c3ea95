# SPDX-License-Identifier: Apache-2.0
"""In the guest: a TPM device of the kernel (tpm_vtpm_proxy) whose commands the TPM on the host executes.

``vtpm.py HOST PORT``.  The guest can reset it no more than a board can reset its TPM chip: its state is the host's.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

NEW_DEV = 0xC014A100  # _IOWR(0xa1, 0, struct vtpm_proxy_new_dev)
TPM2 = 1
SET_LOCALITY = 0x20001000  # the driver's own command, not for the TPM
DONE = struct.pack(">HII", 0x8001, 10, 0)
ANSWER_MAX = 4096


def execute(tpm: socket.socket, command: bytes) -> bytes:
    """One command to the TPM; its whole answer."""
    tpm.sendall(command)
    answer = b""
    while len(answer) < 10 or len(answer) < int.from_bytes(answer[2:6], "big"):
        chunk = tpm.recv(ANSWER_MAX)
        if not chunk:
            raise OSError("the TPM closed the connection")
        answer += chunk
    return answer


def main() -> None:
    """Serve until the TPM is gone."""
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as tpm:
        control = os.open("/dev/vtpmx", os.O_RDWR)
        _, number, fd, _, _ = struct.unpack("=IIIII", fcntl.ioctl(control, NEW_DEV, struct.pack("=IIIII", TPM2, 0, 0, 0, 0)))
        print(f"serving /dev/tpm{number}", flush=True)
        while command := os.read(fd, ANSWER_MAX):
            own = int.from_bytes(command[6:10], "big") == SET_LOCALITY
            os.write(fd, DONE if own else execute(tpm, command))


if __name__ == "__main__":
    main()
