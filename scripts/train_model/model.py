"""A LLaMA in PyTorch: RMS norms, rotary positions, grouped-query attention, SwiGLU."""
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class Shape:
    vocabulary: int
    width: int = 192
    layers: int = 8
    heads: int = 3
    kv_heads: int = 1
    head_size: int = 64
    feed_forward: int = 256
    context: int = 1024
    rope_base: float = 500000.0  # slow rotations: most pairs of a head compare content, whatever the distance
    norm_epsilon: float = 1e-5


def rotate(x, cos, sin):
    """Rotary positions on (…, tokens, heads, head size). A pair is (i, i + half); the export reorders for llama.cpp."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Norm(nn.Module):
    def __init__(self, width, epsilon):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        width, size = shape.width, shape.head_size
        self.attention_norm = Norm(width, shape.norm_epsilon)
        self.feed_forward_norm = Norm(width, shape.norm_epsilon)

        def matrix(rows, columns, scale=0.5):
            return nn.Parameter(torch.randn(rows, columns) * scale / math.sqrt(columns))

        self.query = matrix(shape.heads * size, width)
        self.key = matrix(shape.kv_heads * size, width)
        self.value = matrix(shape.kv_heads * size, width)
        self.output = matrix(width, shape.heads * size, 0.25)
        self.gate = matrix(shape.feed_forward, width, 1.0)
        self.up = matrix(shape.feed_forward, width, 1.0)
        self.down = matrix(width, shape.feed_forward, 0.25)

    def attend(self, x, cos, sin, mask):
        shape = self.shape
        batch, tokens, _ = x.shape
        group, size = shape.heads // shape.kv_heads, shape.head_size
        projected = F.linear(x, torch.cat([self.query, self.key, self.value]))
        projected = projected.view(batch, tokens, shape.heads + 2 * shape.kv_heads, size)
        rotated = rotate(projected[:, :, :shape.heads + shape.kv_heads], cos, sin)
        # Query heads of a group are stacked along the tokens, so that each key head is multiplied once.
        query = rotated[:, :, :shape.heads].view(batch, tokens, shape.kv_heads, group, size)
        query = query.permute(0, 2, 3, 1, 4).reshape(batch * shape.kv_heads, group * tokens, size)
        key = rotated[:, :, shape.heads:].transpose(1, 2).reshape(batch * shape.kv_heads, tokens, size)
        value = projected[:, :, shape.heads + shape.kv_heads:].transpose(1, 2).reshape(batch * shape.kv_heads, tokens, size)
        scores = torch.baddbmm(mask, query * size ** -0.5, key.transpose(1, 2))
        mixed = torch.bmm(torch.softmax(scores, dim=-1), value)
        mixed = mixed.view(batch, shape.kv_heads, group, tokens, size).permute(0, 3, 1, 2, 4)
        return F.linear(mixed.reshape(batch, tokens, shape.heads * size), self.output)

    def forward(self, x, cos, sin, mask):
        x = x + self.attend(self.attention_norm(x), cos, sin, mask)
        gate, up = F.linear(self.feed_forward_norm(x), torch.cat([self.gate, self.up])).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Model(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.vocabulary, shape.width) * 0.1)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.norm_epsilon)
        self.unembedding = nn.Parameter(torch.randn(shape.vocabulary, shape.width) * 0.01)

        half = shape.head_size // 2
        frequencies = shape.rope_base ** (-torch.arange(half) / half)
        angles = torch.arange(shape.context)[:, None] * frequencies
        self.register_buffer("cos", angles.cos()[:, None, :], persistent=False)
        self.register_buffer("sin", angles.sin()[:, None, :], persistent=False)
        self.start_with_look_ups(frequencies)

    @torch.no_grad()
    def start_with_look_ups(self, frequencies, fast=8, slow=12, positional=6.0, match=1.2):
        """Starts with heads that look things up, in the spirit of mimetic initialisation (Trockman and Kolter, 2023): a
        small model learns them last, and until then learns little else. All of it goes on being trained.

        The width has three slots: the token itself, the token before it, and what comes next, which the output reads.
        Layer 0 copies the token before (its fast rotary pairs find it, driven by dimension 0, the same in all tokens).
        Layers 2 and 4 look for this token's earlier occurrence and say what came after it. Layers 3 and 5 look for an
        earlier occurrence of this token or the one before, and say what stood before it: an option's letter."""
        shape, size = self.shape, self.shape.head_size
        half, slot = size // 2, (shape.width - 1) // 3
        token, before, after = (slice(1 + index * slot, 1 + (index + 1) * slot) for index in range(3))
        self.embedding[:, token] = torch.randn(shape.vocabulary, slot)
        self.embedding[:, 0] = 4.0
        self.unembedding[:, after] = 0.15 * self.embedding[:, token]

        everything = torch.eye(size)[:, :slot]
        # Only slow pairs compare content, for fast ones forget it over a distance.
        content = torch.diag(torch.arange(size) % half >= slow).float()[:, :slot] * match

        def head(index):
            return slice(index * size, (index + 1) * size)

        first = self.layers[0]
        for index, back in [(0, 1), (1, 2)]:
            first.query[head(index)] *= 0.1
            first.query[index * size:index * size + fast, 0] = torch.cos(back * frequencies[:fast])
            first.query[index * size + half:index * size + half + fast, 0] = -torch.sin(back * frequencies[:fast])
        first.key[:fast, 0] = positional ** 2 / 36
        first.key[half:half + fast, 0] = 0
        first.value[:, token] = everything
        first.output[before, head(0)] = 0.65 * everything.t()
        for layer in (self.layers[2], self.layers[4]):
            layer.query[head(0), token] = content
            layer.key[:size, before] = content
            layer.value[:size, token] = everything
            layer.output[after, head(0)] = 0.5 * everything.t()
        for layer in (self.layers[3], self.layers[5]):
            layer.query[head(0), before] = content
            layer.query[head(1), token] = content
            layer.key[:size, token] = content
            layer.value[:size, before] = everything
            layer.output[after, head(0)] = 0.5 * everything.t()
            layer.output[after, head(1)] = 0.5 * everything.t()

    def forward(self, tokens, chosen=None):
        """Logits of the chosen positions (a mask), or of all."""
        count = tokens.shape[1]
        cos, sin = self.cos[:count], self.sin[:count]
        group = self.shape.heads // self.shape.kv_heads
        mask = torch.full((count, count), -1e9).triu(1).repeat(group, 1)[None]
        x = self.embedding[tokens]
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        if chosen is not None:
            x = x[chosen]
        return F.linear(self.norm(x), self.unembedding)
