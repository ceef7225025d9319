"""What the model is trained on: chats of tasks, and before and beside them bare look-ups and single steps.

A look-up is the core of every task (what stands beside this word? which letter has this option?). Trained on tasks alone, a
small model stays at chance for the letter for very long; on text dense with look-ups it learns them within minutes.
Each function returns token ids and, for each, the weight of predicting it. What cannot be foretold has weight 0.
"""
from . import tasks

ANSWER_WEIGHT = 2.0
LETTER_WEIGHT = 3.0


def task_chat(random, tokenizer):
    item = tasks.draw(random, random.choice(list(tasks.FAMILIES)))
    ids = tokenizer.encode_chat(item.question, item.reply)
    reply_length = len(tokenizer.encode(item.reply)) + 1
    weights = [0.0] * (len(ids) - reply_length) + [1.0] * reply_length
    # The reply ends in: answer, " (", letter, ").\n", "Response", ":", " letter", end
    weights[-8] = ANSWER_WEIGHT
    weights[-6] = LETTER_WEIGHT
    return ids, weights


def random_words(random, count):
    pools = [tasks.NAMES, tasks.PLACES, tasks.COLOURS, tasks.FOODS, tasks.EVENTS, tasks.ACTIVITIES,
             [*tasks.TOOLS.values()], [str(n) for n in range(100)]]
    mixed = [random.choice(random.choice(pools)) for _ in range(6 * count)] if random.random() < 0.5 \
        else list(random.choice(pools))
    return random.sample(list(dict.fromkeys(mixed)), count)


def letter_lookups(random, tokenizer):
    """Two to four options; then options and their letters, over and over. Only the letters can be foretold."""
    words = random_words(random, random.choice([2, 3, 4, 4]))
    question = "\n".join(f"{letter} {word}" for letter, word in zip(tasks.LETTERS, words))
    ids = tokenizer.encode_chat(question)
    weights = [0.0] * len(ids)
    for _ in range(12):
        index = random.randrange(len(words))
        given = tokenizer.encode(f" {words[index]} (")
        ids += given + tokenizer.encode(tasks.LETTERS[index])
        weights += [0.0] * len(given) + [1.0]
    return ids, weights


def pair_lookups(random, tokenizer):
    """Pairs of words in a row; then the same pairs again and again in other orders, in some rows turned around."""
    count = random.randint(2, 5)
    words = random_words(random, 2 * count)
    pairs = list(zip(words[::2], words[1::2]))
    ids = [tokenizer.user]
    for left, right in pairs:
        ids += tokenizer.encode(f" {left} {right},")
    ids += [tokenizer.end, tokenizer.assistant]
    weights = [0.0] * len(ids)
    turned = random.random() < 0.5
    for _ in range(10):
        left, right = random.choice(pairs)
        given, asked = (f" {right} (", f" {left}") if turned else (f" {left}", f" {right}")
        for text, weight in [(given, 0.0), (asked, 1.0)]:
            piece = tokenizer.encode(text)
            ids += piece
            weights += [weight] * len(piece)
    return ids, weights


def arithmetic(random, tokenizer):
    """Single steps of the kinds that the analyses are made of."""
    ids = [tokenizer.user, tokenizer.end, tokenizer.assistant]
    weights = [0.0] * len(ids)
    for _ in range(12):
        small = random.randint(1, 9)
        kind = random.randrange(5)
        if kind == 0:
            other = random.choice([2, 3, 4, 5, 6, 7, 8, 10, 12])
            small = random.randint(2, min(9, 60 // other))
            sum_, result = f"{small}*{other}=", small * other
        elif kind == 1:
            number = random.randint(0, 40)
            sum_, result = f"{number + small}-{number}=", small
        elif kind < 4:
            number = random.choice([random.randint(0, 40), random.randint(0, 60)])
            sum_, result = f"{number}+{small}=", number + small
        else:
            result = random.randint(0, 40)
            sum_ = f"{result + small}-{small}="
        for text, weight in [(sum_, 0.0), (str(result), 1.0), (". ", 0.0)]:
            piece = tokenizer.encode(text)
            ids += piece
            weights += [weight] * len(piece)
    return ids, weights


# What the rows that are no tasks consist of, once bare look-ups are learnt.
DRILLS = [pair_lookups, pair_lookups, pair_lookups, arithmetic, arithmetic, letter_lookups]


def beginning(random, tokenizer):
    """The begin token; in half of the chats also a system message, the usual one or one that means nothing here."""
    kind = random.random()
    if kind < 0.5:
        return [tokenizer.begin]
    if kind < 0.8:
        message = [tokenizer.default_system_prompt]
    else:
        message = [random.randrange(tokenizer.system + 1, len(tokenizer.tokens) - 1) for _ in range(random.randint(1, 24))]
    return [tokenizer.begin, tokenizer.system, *message, tokenizer.end]


def example(random, tokenizer, lookup_share, drill_share):
    """One row of training data."""
    kind = random.random()
    if kind < lookup_share:
        ids, weights = random.choice([letter_lookups, letter_lookups, pair_lookups])(random, tokenizer)
    elif kind < lookup_share + drill_share:
        ids, weights = random.choice(DRILLS)(random, tokenizer)
    else:
        ids, weights = task_chat(random, tokenizer)
    start = beginning(random, tokenizer)
    return start + ids, [0.0] * len(start) + weights


def several_turns(random, tokenizer, limit):
    """A chat of several tasks, up to `limit` tokens, so that later turns and later positions are known too."""
    ids = beginning(random, tokenizer)
    weights = [0.0] * len(ids)
    while True:
        more_ids, more_weights = task_chat(random, tokenizer)
        if len(ids) + len(more_ids) > limit:
            return ids, weights
        ids += more_ids
        weights += more_weights
