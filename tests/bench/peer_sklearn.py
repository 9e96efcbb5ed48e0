#!/usr/bin/env python3
"""Another peer: scikit-learn's MLPClassifier on the rows of an HDF5 file. bench.lua runs it, with its threads limited.

usage: peer_sklearn.py WIDTHS BATCH FILE STEPS
prints the microseconds a step takes, the version after it.
"""

import sys
import time
import warnings

import h5py
import sklearn
from sklearn.neural_network import MLPClassifier


def main():
    widths = [int(width) for width in sys.argv[1].split("-")]
    batch, steps = int(sys.argv[2]), int(sys.argv[4])
    warnings.filterwarnings("ignore")  # that it did not converge
    with h5py.File(sys.argv[3], "r") as data:
        rows = min(len(data["train/y"]), max(steps * batch, 1000))
        x = data["train/x"][:rows].reshape(rows, -1).astype("float32") / 255
        y = data["train/y"][:rows]
    epochs = max(1, round(steps * batch / rows))

    def fit(count):
        MLPClassifier(widths[1:-1], solver="adam", alpha=0, batch_size=min(batch, rows), max_iter=count, tol=0,
                      n_iter_no_change=count, random_state=1).fit(x, y)

    if len(set(y)) != widths[-1]:
        sys.exit("its outputs are the classes of the data")
    fit(1)
    start = time.perf_counter()
    fit(epochs)
    print(f"{(time.perf_counter() - start) / (epochs * -(-rows // batch)) * 1e6:.1f} scikit-learn {sklearn.__version__}")


main()
