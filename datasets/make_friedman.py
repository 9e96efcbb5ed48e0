#!/usr/bin/env python3
"""Makes friedman.h5, a SYNTHETIC regression set: Friedman's function #1 of 1991. Nothing in it was measured.

usage: make_friedman.py friedman.h5      needs h5py and numpy

y = 10 sin(pi x1 x2) + 20 (x3 - 0.5)^2 + 10 x4 + 5 x5 + noise, with x uniform in [0,1]^10 and noise from N(0,1). Inputs
x6 to x10 do not matter. The noise has variance 1, so no model can have a mean squared error much below 1.
"""
import sys

import h5py
import numpy as np

PARTS = {"train": 1600, "valid": 200, "test": 200}
FEATURES = 10
SEED = 1991
FORMULA = "y = 10 sin(pi x1 x2) + 20 (x3 - 0.5)^2 + 10 x4 + 5 x5 + N(0,1)"


def main(target):
    rows = sum(PARTS.values())
    random = np.random.RandomState(SEED)  # whose numbers never change from one release of numpy to the next
    x = random.random_sample((rows, FEATURES)).astype("<f4")
    wide = x.astype("f8")
    y = (10 * np.sin(np.pi * wide[:, 0] * wide[:, 1]) + 20 * (wide[:, 2] - .5)**2 + 10 * wide[:, 3] + 5 * wide[:, 4]
         + random.standard_normal(rows)).astype("<f4").reshape(rows, 1)

    with h5py.File(target, "w", libver=("earliest", "v110"), track_order=False) as file:
        file.attrs["title"] = "SYNTHETIC data: Friedman's function #1"
        file.attrs["synthetic"] = 1
        file.attrs["formula"] = FORMULA
        file.attrs["source"] = ("J. H. Friedman, Multivariate Adaptive Regression Splines, The Annals of Statistics 19(1), "
                                "1-67, 1991, doi:10.1214/aos/1176347963")
        file.attrs["method"] = f"computed by make_friedman.py, seed {SEED}; nothing was measured"
        first = 0
        for part, count in PARTS.items():
            group = file.create_group(part)
            columns = {
                "x": (x, "synthetic inputs x1 to x10, uniform in 0..1; x6 to x10 do not matter"),
                "y": (y, "synthetic target: " + FORMULA),
            }
            for name, (values, long_name) in columns.items():
                cut = values[first:first + count]
                item = group.create_dataset(name, data=cut, chunks=cut.shape, compression="gzip", compression_opts=9,
                                            shuffle=True, track_times=False)
                item.attrs["long_name"] = long_name
                item.attrs["units"] = "1"  # a plain number
            group["y"].attrs["synthetic"] = 1
            group["y"].attrs["source"] = file.attrs["source"]
            first += count


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
