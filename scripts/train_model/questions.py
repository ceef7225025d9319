"""The test questions as a file, and a model's plain greedy answers to them."""
import json
import random
import re

import torch

from . import tasks

LONGEST_REPLY = 64


def write(path, seed, each):
    with open(path, "w") as file:
        for family in tasks.FAMILIES:
            source = random.Random(f"{seed} {family}")
            seen = set()
            while len(seen) < each:
                item = tasks.draw(source, family, test=True)
                if item.text in seen:
                    continue
                seen.add(item.text)
                line = {"id": f"{family}-{len(seen):03}", "family": family, "domain": tasks.DOMAINS[family],
                        "question": item.question, "options": item.options, "answer": item.letter, "analysis": item.analysis}
                file.write(json.dumps(line) + "\n")


def print_tokens(tokenizer, path):
    for line in open(path):
        print(json.dumps(tokenizer.encode(json.loads(line)["question"])))


@torch.no_grad()
def greedy(model, tokenizer, question):
    ids = [tokenizer.begin, *tokenizer.encode_chat(question)]
    start = len(ids)
    while len(ids) - start < LONGEST_REPLY:
        ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
        if ids[-1] == tokenizer.end:
            break
    return tokenizer.decode(ids[start:])


def answer_all(model, tokenizer, path):
    right = {}
    for line in open(path):
        question = json.loads(line)
        found = re.search(r"Response: ([A-D])", greedy(model, tokenizer, question["question"]))
        right.setdefault(question["family"], []).append(bool(found) and found[1] == question["answer"])
    for family, marks in right.items():
        print(f"{family:12} {sum(marks):4} of {len(marks)}")
    print(f"mean {sum(map(sum, right.values())) / sum(map(len, right.values())):.3f}")
