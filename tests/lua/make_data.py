#!/usr/bin/env python3
"""Makes small data set files, right and wrong, in a folder: the Lua tests' fixtures."""
import os
import sys

import h5py
import numpy as np

ROWS, FEATURES, CLASSES = 48, 4, 3


def rows(count, seed):
    """Three clusters, so that a small model learns them in a few epochs."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    x = random.normal(0, 0.3, (count, FEATURES))
    x[np.arange(count), labels] += 2
    return x.astype("f4"), labels.astype("u1")


def write(name, parts):
    with h5py.File(name, "w") as file:
        for path, values in parts.items():
            file[path] = values


def main(folder):
    os.chdir(folder)
    x, y = rows(ROWS, 1)
    test_x, test_y = rows(12, 2)
    good = {"train/x": x, "train/y": y, "test/x": test_x, "test/y": test_y}

    def variant(name, **changed):
        write(name, {**good, **{path.replace("_", "/"): values for path, values in changed.items()}})

    write("good.h5", good)
    # Weights: 0, 1 or 2 a row; as many copies of each row; the weight of its class; and a wrong one.
    weights = np.arange(ROWS) % 3
    variant("weighted.h5", train_w=weights.astype("f4"), test_w=np.ones(12, "f4"))
    variant("repeated.h5", train_x=np.repeat(x, weights, 0), train_y=np.repeat(y, weights))
    variant("class_weighted.h5", train_w=np.array([1, 2, 0.5])[y])
    variant("negative_weight.h5", train_w=np.where(weights == 0, -1.0, 1.0))
    write("flat_weighted.h5", {"data/x": x, "data/y": y, "data/w": weights.astype("f8")})
    # Rows that a model of identities takes for outputs: classes with a known confusion, and values.
    logits = np.array([[3, 1, 0, -1], [2, 1, 0, -1], [0, 4, 1, -1], [0, 5, 1, -1], [1, 2, 0, -1], [0, 1, 2, -1],
                       [5, 0, 1, -1]], "f4")
    write("table.h5", {"test/x": logits, "test/y": np.array([0, 0, 0, 1, 1, 1, 2], "u1"), "train/x": logits,
                       "train/y": np.array([0, 0, 0, 1, 1, 1, 2], "u1")})
    values = np.array([[1, 10], [2, 20], [3, 30], [4, 40]], "f4")
    write("table_values.h5", {"test/x": values, "test/y": values + np.array([[1, -2], [0, 0], [-1, 2], [0, 4]], "f4")})
    sides = np.array([[2, -1], [0.5, 3], [-4, 1], [-0.1, -2]], "f4")
    write("table_binary.h5", {"test/x": sides, "test/y": np.array([[1, 0], [0, 1], [0, 0], [1, 0]], "f4")})
    two = (y == 0).astype("u1")
    variant("two.h5", train_y=two, test_y=(test_y == 0).astype("u1"))
    variant("sides.h5", train_y=np.stack([two, 1 - two], 1).astype("f4"),
            test_y=np.stack([test_y == 0, test_y != 0], 1).astype("f4"))
    write("flat.h5", {"data/x": x, "data/y": y})
    variant("values.h5", train_y=np.stack([x.sum(1), x[:, 0]], 1), test_y=np.stack([test_x.sum(1), test_x[:, 0]], 1))
    variant("label.h5", train_y=np.where(np.arange(ROWS) == 7, 11, y).astype("u1"))
    late = np.isin(np.arange(ROWS), (40, 46))
    variant("late_negative.h5", train_y=np.where(late, -1, y).astype("i4"))
    variant("negative.h5", train_y=np.where(np.arange(ROWS) == 7, -1, y).astype("i4"))
    variant("nan.h5", train_x=np.where(np.arange(ROWS)[:, None] == 5, np.nan, x).astype("f4"))
    variant("inf.h5", train_x=np.where(np.arange(ROWS)[:, None] == 5, np.inf, x).astype("f4"))
    variant("unequal.h5", train_y=y[:-1])
    variant("text.h5", train_x=np.array([b"a"] * ROWS))
    variant("empty.h5", train_x=x[:0], train_y=y[:0])
    write("no_y.h5", {"train/x": x})
    write("nothing.h5", {"other": x})
    with open("good.h5", "rb") as file:
        content = file.read()
    with open("truncated.h5", "wb") as file:
        file.write(content[:len(content) // 2])
    with open("not_hdf5.h5", "w") as file:
        file.write("these are not the bytes of an HDF5 file\n")


if __name__ == "__main__":
    main(sys.argv[1])
