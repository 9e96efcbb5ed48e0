#!/usr/bin/env python3
"""The benchmark's peer: the same training in PyTorch on the CPU. bench.lua runs it.

usage: peer_torch.py WIDTHS BATCH ROWS STEPS THREADS
prints the microseconds a step of an MLP of these widths with ReLU, cross-entropy and Adam takes, on u8 rows that are
shuffled, gathered and scaled a batch at a time, as lavaflow does.
"""

import sys
import time

import torch


def main():
    widths = [int(width) for width in sys.argv[1].split("-")]
    batch, rows, steps, threads = (int(text) for text in sys.argv[2:6])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_function = torch.nn.CrossEntropyLoss()
    x = torch.randint(0, 256, (rows, widths[0]), dtype=torch.uint8)
    y = torch.randint(0, 10, (rows,))

    def train(count):
        done = 0
        while done < count:
            order = torch.randperm(rows)
            for first in range(0, rows, batch):
                chosen = order[first:first + batch]
                optimizer.zero_grad(set_to_none=True)
                loss = loss_function(model(x[chosen].float() / 255), y[chosen])
                loss.backward()
                optimizer.step()
                done += 1
                if done == count:
                    return

    train(max(3, steps // 10))
    start = time.perf_counter()
    train(steps)
    print(f"{(time.perf_counter() - start) / steps * 1e6:.1f} PyTorch {torch.__version__}")


main()
