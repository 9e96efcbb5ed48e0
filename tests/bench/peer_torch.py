#!/usr/bin/env python3
"""The benchmark's peer: the same training in PyTorch on the CPU, of the same HDF5 file. The Lua files here run it.

usage: peer_torch.py THREADS time WIDTHS BATCH FILE STEPS    microseconds a step
       peer_torch.py THREADS losses MODEL BATCH FILE STEPS EPOCHS
                         from the weights of a model file, rows in the order of the file: the losses of the first
                         steps, then the accuracy on the test part after the epochs
       peer_torch.py THREADS whole WIDTHS BATCH FILE EPOCHS OUT
                         reads, trains, saves the model
       peer_torch.py THREADS sgemm                           GFLOP/s of a product of two matrices of 2048 x 2048
An MLP with ReLU, cross-entropy and Adam; the u8 rows are shuffled, gathered and scaled a batch at a time, as lavaflow
does.
"""

import sys
import time

import torch


def read(file, part):
    import h5py

    with h5py.File(file, "r") as data:
        x, y = data[part + "/x"][:], data[part + "/y"][:]
    return torch.from_numpy(x.reshape(len(x), -1)), torch.from_numpy(y.astype("int64"))


def make_model(widths):
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def load_model(file):
    import h5py

    with h5py.File(file, "r") as stored:
        count = len([name for name in stored["model"] if name.startswith("linear_")])
        layers = [stored[f"model/linear_{i + 1}"] for i in range(count)]
        kernels = [(torch.from_numpy(layer["kernel"][:]), torch.from_numpy(layer["bias"][:])) for layer in layers]
    model = make_model([len(kernels[0][0])] + [len(bias) for _, bias in kernels])
    with torch.no_grad():
        for layer, (kernel, bias) in zip(model[::2], kernels):
            layer.weight.copy_(kernel.T)
            layer.bias.copy_(bias)
    return model


def train(model, x, y, batch, steps, order_of, told=None):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_function = torch.nn.CrossEntropyLoss()
    done = 0
    while done < steps:
        order = order_of(len(x))
        for first in range(0, len(x), batch):
            chosen = order[first:first + batch]
            optimizer.zero_grad(set_to_none=True)
            loss = loss_function(model(x[chosen].float() / 255), y[chosen])
            loss.backward()
            optimizer.step()
            done += 1
            if told:
                told(done, loss)
            if done == steps:
                return


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(1)
    mode = sys.argv[2]
    if mode == "sgemm":
        a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
        took = []
        for _ in range(8):
            start = time.perf_counter()
            a @ b
            took.append(time.perf_counter() - start)
        print(f"{2 * 2048 ** 3 / min(took) * 1e-9:.1f} PyTorch {torch.__version__}")
        return
    batch = int(sys.argv[4])
    x, y = read(sys.argv[5], "train")
    if mode == "losses":
        model, steps, epochs = load_model(sys.argv[3]), int(sys.argv[6]), int(sys.argv[7])
        train(model, x, y, batch, epochs * -(-len(x) // batch), torch.arange,
              lambda step, loss: step <= steps and print(f"{loss.item():.9g}"))
        x, y = read(sys.argv[5], "test")
        with torch.no_grad():
            print(f"{(model(x.float() / 255).argmax(1) == y).float().mean().item():.9g}")
        return
    model = make_model([int(width) for width in sys.argv[3].split("-")])
    if mode == "whole":
        train(model, x, y, batch, int(sys.argv[6]) * -(-len(x) // batch), torch.randperm)
        torch.save(model.state_dict(), sys.argv[7])
        return
    steps = int(sys.argv[6])
    train(model, x, y, batch, max(3, steps // 10), torch.randperm)
    start = time.perf_counter()
    train(model, x, y, batch, steps, torch.randperm)
    print(f"{(time.perf_counter() - start) / steps * 1e6:.1f}")


main()
