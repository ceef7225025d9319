"""Short situations with a multiple-choice question, in twelve families, made from a seed.

Every family is a function of a random generator that returns an `Item`. The steps of an analysis are short copies of
what the situation says, or one look-up in a small table, so that a model of a few million parameters can learn them.
"""
import hashlib
from dataclasses import dataclass

LETTERS = "ABCD"
TEST_SHARE = 5  # one combination in this many belongs to the test split

NAMES = """Tom Ann Bob Eve Dan Mia Leo Zoe Max Ida Sam Lily Ben Emma Jack Nora Paul Rosa Hugo Vera Finn Clara Noah Alice
Oscar Ruth Felix Julia Simon Maria Peter Helen""".split()
MEN, WOMEN = NAMES[::2], NAMES[1::2]
PLACES = "attic garden kitchen hall cellar garage office library park museum station market school bakery stable tower".split()
THINGS = "key map cup hat lamp book ball coin box bag ring pen drum clock knife spoon".split()
COLOURS = "red blue green black white pink brown grey yellow purple".split()
EVENTS = "walk lunch film game song speech dance race concert dinner meeting lesson trip sale party play".split()
GOODS = {"pen": "pens", "cup": "cups", "hat": "hats", "ball": "balls", "coin": "coins", "book": "books", "lamp": "lamps",
         "pear": "pears", "plate": "plates", "card": "cards", "stamp": "stamps", "shell": "shells"}
TOOLS = {"read": "book", "swim": "towel", "paint": "brush", "cook": "pan", "write": "pen", "sew": "needle",
         "dig": "spade", "fish": "rod", "sleep": "pillow", "ski": "skis", "eat": "fork", "drum": "sticks",
         "climb": "rope", "sail": "boat", "ride": "horse", "film": "camera"}
ACTIVITIES = list(TOOLS)
KINDS = "bird fish cat dog horse cow goat mouse bear frog snake duck".split()
FOODS = "seeds worms meat fruit grass nuts leaves eggs rice corn bread honey".split()
UNITS = [("week", "weeks", "days", 7), ("dozen", "dozens", "eggs", 12), ("year", "years", "months", 12),
         ("pair", "pairs", "shoes", 2), ("hand", "hands", "fingers", 5), ("spider", "spiders", "legs", 8),
         ("yard", "yards", "feet", 3), ("gallon", "gallons", "quarts", 4), ("decade", "decades", "years", 10),
         ("beetle", "beetles", "feet", 6)]
PARENTS = ["father", "mother"]
SIBLINGS = ["brother", "sister"]
# What a relative of the parent is to the child.
RELATIVE_OF_CHILD = {"father": "grandfather", "mother": "grandmother", "brother": "uncle", "sister": "aunt"}


@dataclass
class Item:
    family: str
    text: str        # the situation and the question, without the options
    steps: str       # the analysis without its conclusion
    options: list
    answer: int      # index of the right option
    parts: tuple     # the names, things and numbers of the situation; what the test split holds out

    @property
    def question(self):
        return self.text + "\n" + "\n".join(f"{letter} {option}" for letter, option in zip(LETTERS, self.options))

    @property
    def letter(self):
        return LETTERS[self.answer]

    @property
    def analysis(self):
        return f"{self.steps} So {self.options[self.answer]} ({self.letter})."

    @property
    def reply(self):
        return f"Analysis: {self.analysis}\nResponse: {self.letter}"

    @property
    def is_test(self):
        """Held out are combinations: the family with the set of its parts, in whatever order and wording they occur."""
        key = " ".join([self.family, *sorted({str(part) for part in self.parts})])
        return hashlib.sha256(key.encode()).digest()[0] % TEST_SHARE == 0


def build(random, family, text, steps, answer, wrong, parts):
    """Puts the answer among three wrong options, taken from `wrong` in its order."""
    options = [answer]
    for option in wrong:
        if option not in options and len(options) < len(LETTERS):
            options.append(option)
    assert len(options) == len(LETTERS), (family, text)
    random.shuffle(options)
    return Item(family, text, steps, options, options.index(answer), tuple(parts))


def shuffled(random, values):
    return random.sample(values, len(values))


def listed(pairs):
    """A word's partner stands right behind it: what is further apart, a model of this size does not find."""
    return ", ".join(f"{left} {right}" for left, right in pairs)


def near_numbers(random, answer, others=()):
    """Wrong numbers: some of those in the situation, then neighbours of the answer."""
    close = [n for n in range(answer - 6, answer + 7) if 0 <= n <= 99 and n != answer]
    others = [n for n in others if 0 <= n <= 99]
    return shuffled(random, others)[:1] + shuffled(random, close)


def whereabouts(random):
    people = random.sample(NAMES, random.choice([2, 3]))
    places = random.sample(PLACES, 5)
    thing = random.choice(THINGS)
    where = dict(zip(people, places))
    text = "Where people are: " + listed(where.items()) + "."
    last = {name: f"{name} {place}" for name, place in where.items()}
    used = places[:len(people)]
    for name in random.sample(people, random.choice([0, 1, 1])):
        place = places[len(used)]
        used.append(place)
        where[name] = place
        last[name] = f"Later {name} {place}"
        text += f" {last[name]}."
    asked = random.choice(people)
    if random.random() < 0.5:
        text += f" The {thing} {asked}. Where is the {thing}?"
        steps, parts = f"The {thing} {asked}. {last[asked]}.", [*people, *used, thing]
    else:
        text += f" Where is {asked}?"
        steps, parts = f"{last[asked]}.", [*people, *used]
    wrong = shuffled(random, used) + shuffled(random, PLACES)
    return build(random, "whereabouts", text, steps, where[asked], wrong, parts)


def kinship(random):
    first = random.choice(PARENTS)
    relations = random.sample([relation for relation in PARENTS + SIBLINGS if relation != first], 2)
    men, women = random.sample(MEN, 4), random.sample(WOMEN, 4)

    def somebody(relation):
        return (men if relation in ("father", "brother") else women).pop()

    parent, child = somebody(first), random.choice([men, women]).pop()
    relatives = {relation: somebody(relation) for relation in relations}
    facts = [f"{child} {first} {parent}"] + [f"{parent} {relation} {name}" for relation, name in relatives.items()]
    second = random.choice(relations)
    answer = relatives[second]
    text = "Family: " + ", ".join(shuffled(random, facts)) + f". Who is the {RELATIVE_OF_CHILD[second]} of {child}?"
    steps = f"{child} {first} {parent}, {parent} {second} {answer}."
    used = [child, parent, *relatives.values()]
    wrong = shuffled(random, used) + shuffled(random, NAMES)
    return build(random, "kinship", text, steps, answer, wrong, [*used, *relatives, first])


def order(random):
    if random.random() < 0.5:
        line, article, ask = random.sample(NAMES, random.choice([3, 4])), "", "Who"
    else:
        line, article, ask = random.sample(EVENTS, random.choice([3, 4])), "the ", "What"
    facts = [f"First {line[0]}."] + [f"After {article}{earlier} {later}." for earlier, later in zip(line, line[1:])]
    place = random.randrange(1, len(line))
    word = "last" if place == len(line) - 1 else ["first", "second", "third"][place]
    steps = f"First {line[0]}, " + ", ".join(f"after {article}{earlier} {later}" for earlier, later in zip(line, line[1:place + 1])) + "."
    wrong = shuffled(random, line) + shuffled(random, NAMES if ask == "Who" else EVENTS)
    return build(random, "order", " ".join(["Today:", *shuffled(random, facts), f"{ask} came {word}?"]), steps, line[place], wrong, line)


def wishes(random):
    people = random.sample(NAMES, 3)
    wanted = random.sample(ACTIVITIES, 4)
    wish = dict(zip(people, wanted))
    text = "Wishes: " + listed(wish.items()) + "."
    last = {name: f"{name} {activity}" for name, activity in wish.items()}
    used = wanted[:3]
    if random.random() < 0.5:
        name = random.choice(people)
        wish[name] = wanted[3]
        used = wanted
        last[name] = f"Now {name} {wanted[3]}"
        text += f" {last[name]}."
    asked = random.choice(people)
    steps = f"{last[asked]}. To {wish[asked]} you need the {TOOLS[wish[asked]]}."
    wrong = shuffled(random, [TOOLS[activity] for activity in used]) + shuffled(random, list(TOOLS.values()))
    return build(random, "wishes", f"{text} What will {asked} take?", steps, TOOLS[wish[asked]], wrong, [*people, *used])


def rules(random):
    count = random.choice([2, 2, 3])
    colours = random.sample(COLOURS, count)
    allowed = random.sample(ACTIVITIES, count)
    people = random.sample(NAMES, 2)
    lists = ["Cards: " + listed(shuffled(random, list(zip(colours, allowed)))) + ".",
             "Holders: " + listed(shuffled(random, list(zip(people, colours)))) + "."]
    asked = random.randrange(len(people))
    person, colour, activity = people[asked], colours[asked], allowed[asked]
    if random.random() < 0.6:
        question, steps = f"What may {person} do?", f"{person} {colour}, {colour} {activity}."
        answer, wrong = activity, shuffled(random, allowed) + shuffled(random, ACTIVITIES)
    else:
        question, steps = f"Who may {activity}?", f"{activity} {colour}, {colour} {person}."
        answer, wrong = person, shuffled(random, people) + shuffled(random, NAMES)
    return build(random, "rules", " ".join([*shuffled(random, lists), question]), steps, answer, wrong,
                 [*colours, *allowed, *people])


def kinds(random):
    sorts = random.sample(KINDS, 2)
    foods = random.sample(FOODS, 3)
    pets = random.sample(NAMES, 2)
    kind = dict(zip(pets, shuffled(random, sorts)))
    food = dict(zip(sorts, foods))
    lists = ["Food: " + listed(shuffled(random, list(food.items()))) + ".", "Pets: " + listed(kind.items()) + "."]
    text = " ".join(shuffled(random, lists))
    meal = {pet: food[kind[pet]] for pet in pets}
    steps = {pet: f"{pet} {kind[pet]}, {kind[pet]} {meal[pet]}." for pet in pets}
    used = foods[:2]
    exception = random.choice([*pets, None])
    if exception:
        used = foods
        meal[exception] = foods[2]
        steps[exception] = f"But {exception} {foods[2]}."
        text += f" {steps[exception]}"
    asked = random.choice(pets)
    wrong = shuffled(random, used) + shuffled(random, FOODS)
    return build(random, "kinds", f"{text} What does {asked} eat?", steps[asked], meal[asked], wrong, [*sorts, *used, *pets])


def sums(random):
    name = random.choice(NAMES)
    goods = random.choice(list(GOODS.values()))
    total = random.randint(1, 20)
    numbers, changes, steps = [total], [], []
    for _ in range(random.choice([1, 2, 2])):
        more = total < 10 or (total < 22 and random.random() < 0.5)
        amount = random.randint(1, 9)
        after = total + amount if more else total - amount
        changes.append(f"{name} {random.choice(['gets', 'finds', 'buys'] if more else ['loses', 'sells', 'gives'])} {amount}.")
        steps.append(f"{total}{'+' if more else '-'}{amount}={after}.")
        numbers.append(amount)
        total = after
    text = " ".join(["Sum:", f"{name} has {numbers[0]} {goods}.", *changes, f"How many {goods} has {name} now?"])
    return build(random, "sums", text, " ".join(steps), total, near_numbers(random, total, numbers),
                 [name, goods, *numbers])


def counting(random):
    people = random.sample(NAMES, random.choice([3, 4, 5]))
    colours = random.sample(COLOURS, 2)
    goods = random.choice(list(GOODS))
    worn = [random.choice(colours) for _ in people]
    asked = random.choice(worn)
    count, steps = 0, []
    for name, colour in zip(people, worn):
        count += colour == asked
        steps.append(f"{name} {colour} {count}")
    text = f"Count: each has a {goods}, " + ", ".join(f"{name} {colour}" for name, colour in zip(people, worn))
    text += f". How many have a {asked} {goods}?"
    return build(random, "counting", text, ", ".join(steps) + ".", count, shuffled(random, range(7)),
                 [goods, *people, *worn])


def comparing(random):
    people = random.sample(NAMES, random.choice([3, 4]))
    numbers = random.sample(range(1, 60), len(people))
    most = random.random() < 0.5
    goods = random.choice(list(GOODS.values()))
    best, steps = 0, [f"{people[0]} {numbers[0]}."]
    for index in range(1, len(people)):
        sign = ">" if numbers[index] > numbers[best] else "<"
        rival = numbers[best]
        if (sign == ">") == most:
            best = index
        steps.append(f"{people[index]} {numbers[index]}{sign}{rival}, {people[best]}.")
    text = f"Compare: {goods}, " + ", ".join(f"{name} {number}" for name, number in zip(people, numbers))
    text += f". Who has the {'most' if most else 'fewest'}?"
    return build(random, "comparing", text, " ".join(steps), people[best], shuffled(random, people) + shuffled(random, NAMES),
                 [goods, *people, *numbers])


def sequences(random):
    while True:
        step = random.choice([-1, 1]) * random.randint(1, 6)
        start = random.randint(1, 40)
        line = [start + index * step for index in range(random.choice([4, 5]))]
        if all(0 <= number <= 40 for number in line):
            break
    *given, answer = line
    sign, back = ("+", "-") if step > 0 else ("-", "+")
    low, high = sorted(given[:2])
    steps = f"{high}-{low}={abs(step)}. {given[-1]}{sign}{abs(step)}={answer}."
    text = "Numbers: " + ", ".join(map(str, given)) + ". What comes next?"
    return build(random, "sequences", text, steps, answer, near_numbers(random, answer), given)


def units(random):
    one, many, small, size = random.choice(UNITS)
    count = random.randint(2, min(9, 60 // size))
    extra = random.choice([0, *range(2, 10)])
    product = count * size
    steps = f"One {one} has {size} {small}. {count}*{size}={product}."
    text = f"Units: take {count} {many}"
    if extra:
        text += f" and {extra} {small}"
        steps += f" {product}+{extra}={product + extra}."
    text += f". How many {small} is that?"
    return build(random, "units", text, steps, product + extra, near_numbers(random, product + extra, [count + extra]),
                 [one, small, count, f"+{extra}"])


def prices(random):
    goods = random.sample(list(GOODS), 3)
    cost = {thing: random.randint(2, 6) for thing in goods}
    bought, other = random.sample(goods, 2)
    count = random.randint(2, 9)
    name = random.choice(NAMES)
    total = count * cost[bought]
    steps = f"One {bought} is {cost[bought]}. {count}*{cost[bought]}={total}."
    basket = f"{count} {GOODS[bought]}"
    if random.random() < 0.5:
        basket += f" and a {other}"
        steps += f" One {other} is {cost[other]}. {total}+{cost[other]}={total + cost[other]}."
        total += cost[other]
    text = "Prices: " + ", ".join(f"{thing} {price}" for thing, price in cost.items()) + f". {name} buys {basket}. How much is it?"
    return build(random, "prices", text, steps, total, near_numbers(random, total, [cost[bought] + count]),
                 [name, count, bought, *(f"{thing}={price}" for thing, price in cost.items())])


NON_STEM = [whereabouts, kinship, order, wishes, rules, kinds]
STEM = [sums, counting, comparing, sequences, units, prices]
FAMILIES = {family.__name__: family for family in NON_STEM + STEM}
DOMAINS = {**{family.__name__: "non-stem" for family in NON_STEM}, **{family.__name__: "stem" for family in STEM}}


def draw(random, family, test=False):
    """One item of the family from the wanted split."""
    while True:
        item = FAMILIES[family](random)
        if item.is_test == test:
            return item


def vocabulary(pieces, random, rounds=2000):
    """Every piece of text that the tasks can produce; `pieces` cuts a text into pieces."""
    words = {str(number) for number in range(100)}
    for family in FAMILIES.values():
        for _ in range(rounds):
            item = family(random)
            words.update(pieces(item.question))
            words.update(pieces(item.reply))
    return words
