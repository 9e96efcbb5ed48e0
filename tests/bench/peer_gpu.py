#!/usr/bin/env python3
"""Peers on a GPU: the same training in PyTorch and JAX. gpu.lua runs it.

usage: peer_gpu.py MODE WIDTHS BATCH ROWS STEPS PRECISION [DEVICE]
MODE: eager, compile (torch.compile of model and loss), graphs (a whole step as one CUDA graph), or jax (one jit over
all steps, a lax.scan). PRECISION: f32 or tf32. DEVICE: cuda unless given.
prints the microseconds a step of an MLP of these widths with ReLU, cross-entropy and Adam takes, on u8 rows that lie
on the device, shuffled, gathered and scaled a batch at a time, as lavaflow does.
"""

import sys
import time


def torch_step(torch, mode, widths, batch, rows, device):
    """A function of the positions of a batch's rows that makes one step."""
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1]).to(device)
    capturable = {"capturable": True} if mode == "graphs" else {}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **capturable)
    x = torch.randint(0, 256, (rows, widths[0]), dtype=torch.uint8, device=device)
    y = torch.randint(0, widths[-1], (rows,), device=device)

    def loss_of(chosen):
        return torch.nn.functional.cross_entropy(model(x[chosen].float() / 255), y[chosen])

    loss_function = torch.compile(loss_of) if mode == "compile" else loss_of

    def step(chosen):
        optimizer.zero_grad(set_to_none=True)
        loss_function(chosen).backward()
        optimizer.step()

    if mode != "graphs":
        return step
    chosen = torch.zeros(batch, dtype=torch.long, device=device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(chosen)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss_function(chosen).backward()
        optimizer.step()

    def replay(positions):
        chosen.copy_(positions)
        graph.replay()

    return replay


def time_torch(mode, widths, batch, rows, steps, precision, device):
    import torch

    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    step = torch_step(torch, mode, widths, batch, rows, device)

    def train(count):
        done = 0
        while done < count:
            order = torch.randperm(rows, device=device)
            for first in range(0, rows - batch + 1, batch):
                step(order[first:first + batch])
                done += 1
                if done == count:
                    break
        if device == "cuda":
            torch.cuda.synchronize()

    train(max(64, steps // 10))
    start = time.perf_counter()
    train(steps)
    return (time.perf_counter() - start) / steps * 1e6, "PyTorch " + torch.__version__


def time_jax(widths, batch, rows, steps, precision):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if precision == "tf32" else "highest")
    keys = jax.random.split(jax.random.PRNGKey(1), 2 * len(widths) + 2)
    params = []
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        bound = inputs ** -0.5
        params.append((jax.random.uniform(keys[2 * i], (inputs, outputs), minval=-bound, maxval=bound),
                       jax.random.uniform(keys[2 * i + 1], (outputs,), minval=-bound, maxval=bound)))
    x = jax.random.randint(keys[-2], (rows, widths[0]), 0, 256, dtype=jnp.uint8)
    y = jax.random.randint(keys[-1], (rows,), 0, widths[-1])
    tree = jax.tree_util.tree_map

    def loss_of(weights, chosen):
        z = x[chosen].astype(jnp.float32) / 255
        for kernel, bias in weights[:-1]:
            z = jax.nn.relu(z @ kernel + bias)
        z = z @ weights[-1][0] + weights[-1][1]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[chosen][:, None], 1))

    def step(state, chosen):
        weights, m, v, count = state
        slopes = jax.grad(loss_of)(weights, chosen)
        count = count + 1
        m = tree(lambda a, g: .9 * a + .1 * g, m, slopes)
        v = tree(lambda a, g: .999 * a + .001 * g * g, v, slopes)
        size = 1e-3 / (1 - .9 ** count)
        correct = 1 / jnp.sqrt(1 - .999 ** count)
        weights = tree(lambda w, a, b: w - size * a / (jnp.sqrt(b) * correct + 1e-8), weights, m, v)
        return (weights, m, v, count), None

    @jax.jit
    def train(state, key):
        per_pass = rows // batch
        passes = -(-steps // per_pass)
        order = jnp.concatenate([jax.random.permutation(k, rows)[:per_pass * batch].reshape(per_pass, batch)
                                 for k in jax.random.split(key, passes)])[:steps]
        return jax.lax.scan(step, state, order)[0]

    zeros = tree(jnp.zeros_like, params)
    state = (params, zeros, zeros, jnp.float32(0))
    jax.block_until_ready(train(state, keys[0]))
    start = time.perf_counter()
    jax.block_until_ready(train(state, keys[1]))
    return (time.perf_counter() - start) / steps * 1e6, "JAX " + jax.__version__


def main():
    mode, precision = sys.argv[1], sys.argv[6]
    widths = [int(width) for width in sys.argv[2].split("-")]
    batch, rows, steps = (int(text) for text in sys.argv[3:6])
    device = sys.argv[7] if len(sys.argv) > 7 else "cuda"
    if mode == "jax":
        took, name = time_jax(widths, batch, rows, steps, precision)
    else:
        took, name = time_torch(mode, widths, batch, rows, steps, precision, device)
    print(f"{took:.2f} {name}")


main()
