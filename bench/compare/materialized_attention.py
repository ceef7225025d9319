"""Emulation as it is done in PyTorch: all attention weights in memory, the mask of layer 0 kept, later layers' weights multiplied.

A LLaMA of random F32 weights, in the shape of the benchmark's model. Does a block of work for each line of standard input:

    prefill N    a prompt of N tokens, without a cache
    fill N       a prompt of N tokens, to decode on top of it
    decode N     N tokens, one by one, each of them timed; then the cache is as it was

The answer is a line of JSON.
"""

import argparse
import json
import math
import sys
import time

import torch
from torch.nn import functional

parser = argparse.ArgumentParser()
for name in ("layers", "heads", "kv-heads", "head-size", "ffn", "vocabulary", "threads"):
    parser.add_argument("--" + name, type=int, required=True)
parser.add_argument("--strength", type=float, default=0.2)
parser.add_argument("--threshold", type=float, default=0.01)
shape = parser.parse_args()

torch.manual_seed(1)
torch.set_num_threads(shape.threads)
width = shape.heads * shape.head_size
kv_width = shape.kv_heads * shape.head_size


def matrix(rows, columns, deviation=0.02):
    return torch.randn(rows, columns) * deviation


def make_layer(index):
    # the deviation of layer 0 lets as many keys pass the threshold as in the benchmark's model
    deviation = math.sqrt(2 / width) if index == 0 else 0.02
    return {
        "q": matrix(width, width, deviation),
        "k": matrix(kv_width, width, deviation),
        "v": matrix(kv_width, width),
        "o": matrix(width, width),
        "gate": matrix(shape.ffn, width),
        "up": matrix(shape.ffn, width),
        "down": matrix(width, shape.ffn),
    }


embeddings = matrix(shape.vocabulary, width)
layers = [make_layer(index) for index in range(shape.layers)]
frequencies = 10000.0 ** (-torch.arange(0, shape.head_size, 2) / shape.head_size)


def normalize(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def rotate(x, start):
    angles = torch.arange(start, start + x.shape[1])[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def split(x, heads):
    return x.view(-1, heads, shape.head_size).transpose(0, 1)


def evaluate(tokens, cache):
    """Logits of the last token. The cache is a list of (keys, values) per layer, and what is returned is a longer one."""
    start = cache[0][0].shape[1] if cache else 0
    count = len(tokens)
    rows = torch.arange(start, start + count)[:, None]
    columns = torch.arange(start + count)[None, :]
    future = columns > rows
    own = columns == rows
    chosen = None

    x = embeddings[tokens]
    longer = []
    for index, layer in enumerate(layers):
        h = normalize(x)
        q = rotate(split(functional.linear(h, layer["q"]), shape.heads), start)
        k = rotate(split(functional.linear(h, layer["k"]), shape.kv_heads), start)
        v = split(functional.linear(h, layer["v"]), shape.kv_heads)
        if cache:
            k = torch.cat((cache[index][0], k), 1)
            v = torch.cat((cache[index][1], v), 1)
        longer.append((k, v))

        group = shape.heads // shape.kv_heads
        scores = q @ k.repeat_interleave(group, 0).transpose(1, 2) / math.sqrt(shape.head_size)
        weights = scores.masked_fill(future, -math.inf).softmax(-1)
        if index == 0:
            chosen = (weights > shape.threshold) & ~own
        else:
            gain = shape.strength * (1 - index / (shape.layers - 1))
            weights = weights * (1 + gain * chosen)
        attended = (weights @ v.repeat_interleave(group, 0)).transpose(0, 1).reshape(count, width)

        x = x + functional.linear(attended, layer["o"])
        h = normalize(x)
        gated = functional.silu(functional.linear(h, layer["gate"])) * functional.linear(h, layer["up"])
        x = x + functional.linear(gated, layer["down"])
    return functional.linear(normalize(x[-1:]), embeddings), longer


def run(name, count, filled):
    tokens = torch.randint(shape.vocabulary, (count,))
    if name == "decode":
        cache = filled
        seconds = []
        for token in tokens:
            start = time.perf_counter()
            logits, cache = evaluate(token[None], cache)
            logits.argmax().item()
            seconds.append(time.perf_counter() - start)
        return seconds, filled

    start = time.perf_counter()
    _, cache = evaluate(tokens, []) if count > 0 else (None, [])
    return [time.perf_counter() - start], cache if name == "fill" else filled


with torch.inference_mode():
    filled = []
    for line in sys.stdin:
        name, count = line.split()
        seconds, filled = run(name, int(count), filled)
        print(json.dumps({"seconds": seconds, "version": torch.__version__}), flush=True)
