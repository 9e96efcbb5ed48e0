#!/usr/bin/env python3
"""Makes digits.h5 from the CSV file of the UCI digits (see README.md).

usage: make_digits.py digits.csv.gz digits.h5      needs h5py

Each line is 64 pixels 0..16, row by row, then the label. The rows are cut into train, valid and test by one fixed
permutation, so that the file is the same wherever it is made.
"""
import gzip
import random
import sys

import h5py
import numpy as np

PARTS = {"train": 1297, "valid": 200, "test": 300}
SEED = 1


def main(source, target):
    with gzip.open(source, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    assert table.shape == (sum(PARTS.values()), 65), table.shape
    order = list(range(len(table)))
    random.Random(SEED).shuffle(order)
    table = table[order]

    with h5py.File(target, "w", libver=("earliest", "v110"), track_order=False) as file:
        file.attrs["title"] = "Optical Recognition of Handwritten Digits, test part"
        file.attrs["source"] = "E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, 1998, doi:10.24432/C50P49"
        file.attrs["license"] = "CC BY 4.0"
        first = 0
        for part, rows in PARTS.items():
            cut = table[first:first + rows]
            first += rows
            group = file.create_group(part)
            x = group.create_dataset("x", data=cut[:, :64].reshape(-1, 8, 8), chunks=(rows, 8, 8), compression="gzip",
                                     compression_opts=9, shuffle=False, track_times=False)
            x.attrs["scale"] = 1 / 16
            x.attrs["long_name"] = "ink of a 4x4 block of pixels, 0..1"
            y = group.create_dataset("y", data=cut[:, 64], chunks=(rows,), compression="gzip", compression_opts=9,
                                     track_times=False)
            y.attrs["classes"] = [str(digit) for digit in range(10)]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
