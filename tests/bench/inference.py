# SPDX-License-Identifier: Apache-2.0
"""What ``gate.require()`` per batch costs an inference."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from frame import Bench, Pinned, median
from places import MODEL, Lab, place

from qsafp_embedded import Gate

KEYS = ("inference.overhead_percent",)
WIDEST = 0.5
TURN = 250  # batches: about a millisecond, so that what disturbs the machine for longer disturbs both


def digits_model(path: Path) -> Any:
    """Train 64-32-10 on scikit-learn's digits, write it as ONNX, and return the samples."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    data = load_digits()
    x = (data.data / 16).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how well it learnt does not matter here
        net = MLPClassifier((32,), random_state=0, max_iter=60).fit(x, data.target)
    layers = [("w", net.coefs_), ("b", net.intercepts_)]
    weights = [(f"{kind}{i}", a.astype(np.float32)) for kind, arrays in layers for i, a in enumerate(arrays)]
    nodes = [helper.make_node("Gemm", ["x", "w0", "b0"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    nodes.append(helper.make_node("Gemm", ["r", "w1", "b1"], ["y"]))
    inputs, outputs = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, w]) for n, w in (("x", 64), ("y", 10)))
    graph = helper.make_graph(nodes, "digits", [inputs], [outputs], [numpy_helper.from_array(a, n) for n, a in weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return x


def _measure_all(b: Bench) -> None:
    """ABAB: half a round without the gate, half with it, in turns whose order changes."""
    import onnxruntime as ort

    n, rounds = b.n(KEYS[0]), b.table[KEYS[0]].rounds
    with place("infer") as folder, Lab(folder) as lab:
        x = digits_model(folder / "digits.onnx")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(str(folder / "digits.onnx"), options, providers=["CPUExecutionProvider"])
        lab.lease()
        gate = Gate(run_dir=lab.root / "run", model=MODEL)
        gate.require()
        batches = [{"x": x[i % len(x)][None, :]} for i in range(n)]
        with Pinned(0):
            alone, gated = _rounds(session.run, gate.require, batches, rounds)
        gate.close()
    percent = [(g / a - 1) * 100 for a, g in zip(alone, gated, strict=True)]
    mean, half = statistics.fmean(percent), 1.96 * statistics.stdev(percent) / math.sqrt(rounds)
    b.beside("inference.model_us", median(alone), "us", samples=alone, n=n * rounds)
    if 2 * half > WIDEST:
        raise RuntimeError(f"the 95 % interval {mean - half:.2f}..{mean + half:.2f} % is wider than {WIDEST} %: too noisy to tell")
    b.put(KEYS[0], mean, samples=percent, n=n * rounds, limit=1, notes=[f"95 % interval {mean - half:.2f}..{mean + half:.2f} %"])


def _rounds(run: Callable[..., Any], require: Callable[[], None], batches: list[Any], rounds: int) -> tuple[list[float], list[float]]:
    """Of each round the median turn without the gate and with it, in us for a batch."""

    def plain(turn: list[Any]) -> float:
        start = time.perf_counter_ns()
        for batch in turn:
            run(None, batch)
        return (time.perf_counter_ns() - start) / len(turn) / 1e3

    def checked(turn: list[Any]) -> float:
        start = time.perf_counter_ns()
        for batch in turn:
            require()
            run(None, batch)
        return (time.perf_counter_ns() - start) / len(turn) / 1e3

    turns = [batches[i : i + TURN] for i in range(0, len(batches), TURN)]
    plain(turns[0]), checked(turns[0])
    alone: list[float] = []
    gated: list[float] = []
    for _ in range(rounds):
        took: dict[Callable[[list[Any]], float], list[float]] = {plain: [], checked: []}
        for i, turn in enumerate(turns):
            for kind in (plain, checked)[:: -1 if i % 2 else 1]:
                took[kind].append(kind(turn))
        alone.append(median(took[plain]))
        gated.append(median(took[checked]))
    return alone, gated


STEPS = ((KEYS, _measure_all),)
