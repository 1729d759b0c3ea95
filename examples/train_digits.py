# SPDX-License-Identifier: Apache-2.0
"""Train a small network on scikit-learn's handwritten digits and write it as ONNX: python train_digits.py MODEL.onnx

The data (1,797 images of 8 x 8 pixels from the UCI repository) ship inside scikit-learn.  A third is held out; the same seeds
give the same bytes on the same machine.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Images (594 x 64, float32, 0 to 1) and labels that training never sees."""
    _, images, _, labels = _split()
    return images, labels


def _split() -> list[np.ndarray]:
    digits = load_digits()
    images = (digits.data / 16.0).astype(np.float32)
    return train_test_split(images, digits.target, test_size=0.33, random_state=7, stratify=digits.target)  # type: ignore[no-any-return]


def train(path: Path) -> float:
    """Train, write the model to ``path`` and return its accuracy on the held-out images."""
    seen, unseen, labels, truth = _split()
    net = MLPClassifier((48,), random_state=7, max_iter=150, early_stopping=False, learning_rate_init=0.004, tol=0.0005)
    net.fit(seen, labels)
    weights = [w.astype(np.float32) for w in (net.coefs_[0], net.intercepts_[0], net.coefs_[1], net.intercepts_[1])]
    names = ["w0", "b0", "w1", "b1"]
    nodes = [
        helper.make_node("Gemm", ["image", "w0", "b0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["score"]),
        helper.make_node("ArgMax", ["score"], ["digit"], axis=1, keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 64])
    digit = helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch"])
    kept = [numpy_helper.from_array(w, n) for w, n in zip(weights, names, strict=True)]
    model = helper.make_model(helper.make_graph(nodes, "digits", [image], [digit], kept), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return float(net.score(unseen, truth))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: train_digits.py MODEL.onnx")
    out = Path(sys.argv[1])
    accuracy = train(out)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    print(f"{out}: {out.stat().st_size} bytes, SHA-256 {digest[:16]}…, {accuracy:.1%} of 594 held-out images right")
