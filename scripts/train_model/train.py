"""The training loop: seeded batches by step number, two workers, checkpoints that training can go on from."""
import os
import random
import threading
import time

import torch
from torch.nn import functional as F

from . import curriculum, tasks
from .model import Model, Shape
from .optimizer import Muon
from .tokenizer import Tokenizer

WORKERS = 2
ROWS = 48            # rows of a batch of single turns
LONG_ROWS = 6        # rows of a batch of several turns
LONG_EVERY = 10      # one batch in so many has several turns, once look-ups are learnt
MATRIX_RATE = 0.006
OTHER_RATE = 0.006
WARM_UP = 50


def make_tokenizer(seed):
    return Tokenizer(tasks.vocabulary(Tokenizer.pieces, random.Random(f"{seed} vocabulary")))


def lookup_share(step):
    """All look-ups at first, then fewer and fewer."""
    return max(0.0, min(1.0, 1.25 - step / 200))


def drill_share(step):
    """Drills come in as look-ups go out, and stay."""
    return 0.35 if step > 200 else 0.0


def rate_at(step, steps, decay):
    """Up quickly, level, then straight down to zero over the last part."""
    return min((step + 1) / WARM_UP, 1.0, (steps - step) / (decay * steps))


def padded(rows, end):
    length = max(len(ids) for ids, _ in rows)
    tokens = torch.full((len(rows), length), end)
    weights = torch.zeros(len(rows), length)
    for index, (ids, row_weights) in enumerate(rows):
        tokens[index, :len(ids)] = torch.tensor(ids)
        weights[index, :len(ids)] = torch.tensor(row_weights)
    return tokens, weights


def batches(seed, step, tokenizer):
    """The parts of one step's batch, one for each worker, shorter rows apart from longer ones."""
    source = random.Random(f"{seed} step {step}")
    if step > 300 and step % LONG_EVERY == 0:
        rows = [curriculum.several_turns(source, tokenizer, 512) for _ in range(LONG_ROWS)]
    else:
        rows = [curriculum.example(source, tokenizer, lookup_share(step), drill_share(step)) for _ in range(ROWS)]
    rows.sort(key=lambda row: len(row[0]))
    share = len(rows) // WORKERS
    return [padded(rows[index * share:(index + 1) * share], tokenizer.end) for index in range(WORKERS)]


class Replica:
    """A model that shares its weights with the main one and has gradients of its own, for one worker."""

    def __init__(self, main):
        self.model = Model(main.shape)
        for mine, theirs in zip(self.model.parameters(), main.parameters()):
            mine.data = theirs.data

    def run(self, tokens, weights, total_weight):
        for parameter in self.model.parameters():
            parameter.grad = None
        targets, weights = tokens[:, 1:], weights[:, 1:]
        chosen = weights > 0
        logits = self.model(tokens[:, :-1], chosen)
        losses = F.cross_entropy(logits, targets[chosen], reduction="none")
        loss = (losses * weights[chosen]).sum() / total_weight
        loss.backward()
        self.loss = loss.item()


def in_parallel(work):
    """Calls work(worker) in a thread for each worker."""
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def save(path, **state):
    torch.save(state, path + ".new")
    os.replace(path + ".new", path)


def load(path):
    """The model and its tokenizer out of a checkpoint, and the checkpoint."""
    state = torch.load(path)
    model = Model(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model, make_tokenizer(state["seed"]), state


@torch.no_grad()
def evaluate(model, tokenizer, seed, count):
    """Per family, of unseen items: how often each token of the reply is the likeliest one (then plain greedy decoding gives
    exactly this reply), and how often the letter is, after the right analysis."""
    source = random.Random(f"{seed} evaluation")
    result = {}
    for family in tasks.FAMILIES:
        items = [tasks.draw(source, family, test=True) for _ in range(count)]
        rows = []
        for item in items:
            start = [tokenizer.begin, *tokenizer.encode_chat(item.question)]
            reply = [*tokenizer.encode(item.reply), tokenizer.end]
            rows.append((start + reply, [0.0] * len(start) + [1.0] * len(reply)))
        tokens, weights = padded(rows, tokenizer.end)
        right = model(tokens[:, :-1]).argmax(-1) == tokens[:, 1:]
        asked = weights[:, 1:] > 0
        exact = (right | ~asked).all(1)
        letters = [right[index, len(ids) - 7].item() for index, (ids, _) in enumerate(rows)]
        result[family] = (exact.float().mean().item(), sum(letters) / count)
    return result


def train(checkpoint, steps, seed, resume, decay, evaluate_every=200, save_every=100):
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(seed)
    model = Model(Shape(vocabulary=len(tokenizer.tokens)))
    matrices = [p for p in model.layers.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    muon, adam = Muon(matrices), torch.optim.Adam(others, lr=OTHER_RATE, betas=(0.9, 0.98))
    step, tokens_seen, seconds, history = 0, 0, 0.0, []
    if resume:
        state = torch.load(checkpoint)
        assert state["seed"] == seed, "a checkpoint goes on with its own seed"
        model.load_state_dict(state["model"])
        muon.state = state["muon"]
        adam.load_state_dict(state["adam"])
        step, tokens_seen, seconds, history = (state[name] for name in ["step", "tokens", "seconds", "history"])
    replicas = [Replica(model) for _ in range(WORKERS)]
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(tokenizer.tokens)} tokens, from step {step}", flush=True)

    recent = []
    while step < steps:
        started = time.time()
        parts = batches(seed, step, tokenizer)
        total_weight = sum(weights.sum().item() for _, weights in parts)
        in_parallel(lambda worker: replicas[worker].run(*parts[worker], total_weight))
        for parameter, *gradients in zip(model.parameters(), *(replica.model.parameters() for replica in replicas)):
            parameter.grad = sum(other.grad for other in gradients)
        rate = rate_at(step, steps, decay)
        in_parallel(lambda worker: muon.step(MATRIX_RATE * rate, worker, WORKERS))
        for group in adam.param_groups:
            group["lr"] = OTHER_RATE * rate
        adam.step()
        step += 1
        tokens_seen += sum(tokens.numel() for tokens, _ in parts)
        seconds += time.time() - started
        recent.append(sum(replica.loss for replica in replicas))
        if step % 20 == 0:
            history.append((step, tokens_seen, sum(recent) / len(recent)))
            print(f"step {step} tokens {tokens_seen} loss {history[-1][2]:.4f} seconds {seconds:.0f}", flush=True)
            recent = []
        if step % evaluate_every == 0 or step == steps:
            scores = evaluate(model, tokenizer, seed, 40)
            print(" ".join(f"{family} {exact:.2f}/{letter:.2f}" for family, (exact, letter) in scores.items()), flush=True)
            print(f"mean {sum(exact for exact, _ in scores.values()) / len(scores):.3f}", flush=True)
        if step % save_every == 0 or step == steps:
            save(checkpoint, model=model.state_dict(), muon=muon.state, adam=adam.state_dict(), step=step, seed=seed,
                 tokens=tokens_seen, seconds=seconds, history=history, shape=vars(model.shape))
