# SPDX-License-Identifier: Apache-2.0
"""A real model on real images under a lease: python infer_digits.py MODEL.onnx RUN_DIR

The one line that matters is ``gate.require()``.  Every 0.2 s a line of JSON says what was done, for whoever watches.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time

import numpy as np
import onnxruntime
from train_digits import held_out

from qsafp_embedded import Gate, LeaseRefused

BATCH = 16


def say(**what: object) -> None:
    """One line of JSON."""
    print(json.dumps(what), flush=True)


def main(model: str, run_dir: str) -> None:
    """Infer while the lease holds; wait when it does not."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    net = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images, labels = held_out()
    gate = Gate(model=model, run_dir=run_dir)
    done = right = 0
    told = time.monotonic()
    while True:
        at = done % (len(images) - BATCH)
        try:
            gate.require()
        except LeaseRefused as no:
            say(stopped_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME), done=done, right=right, why=str(no))
            gate.wait()
            say(resumed_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            continue
        digits = net.run(None, {"image": images[at : at + BATCH]})[0]
        right += int(np.count_nonzero(digits == labels[at : at + BATCH]))
        done += BATCH
        if time.monotonic() - told >= 0.2:
            told = time.monotonic()
            say(done=done, right=right)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: infer_digits.py MODEL.onnx RUN_DIR")
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1], sys.argv[2])
