"""Easy problems: a loop or two, and one thing that is easily overlooked in each."""

from __future__ import annotations

from random import Random

from ra3kit.evaluation.problems.draw import distinct, integers, some, text
from ra3kit.evaluation.problems.group import Group

easy = Group("easy")

NAMES = ["ann", "bea", "cem", "dov", "eli", "flo"]


def _ballot(rng: Random) -> str:
    name = rng.choice(["ann", "Ann", "BEA", "bea", "cem", "", "ann bea"])
    return rng.choice(["", " ", "  "]) + name + rng.choice(["", " "])


@easy.problem(
    base=[
        (["Ann", "bea", " ann"],),
        ([],),
        (["", "  "],),
        (["BEA ", "bea", "Cem", ""],),
        (["Ann Lee", "ann  lee", "ANN LEE"],),
    ],
    draw=lambda rng: ([_ballot(rng) for _ in range(rng.randint(0, 9))],),
)
def tally_votes(votes: list[str]) -> dict[str, int]:
    """Count the votes for each candidate.

    Spaces around a vote and the case of its letters do not matter. Votes that are empty or only spaces
    are left out. The keys of the result are lower-case names without spaces around them.

    >>> tally_votes(["Ann", "bea", " ann"])
    {'ann': 2, 'bea': 1}
    >>> tally_votes(["", "  "])
    {}
    """
    counts: dict[str, int] = {}
    for vote in votes:
        name = vote.strip().lower()
        if name:
            counts[name] = counts.get(name, 0) + 1
    return counts


@easy.problem(
    base=[(9, 50, 25), (23, 59, 1), (0, 0, -1), (7, 5, 0), (12, 0, 1440), (12, 0, -3000), (0, 9, 600)],
    draw=lambda rng: (rng.randint(0, 23), rng.randint(0, 59), rng.randint(-4000, 4000)),
)
def clock_after(hour: int, minute: int, passed: int) -> str:
    """Say what a 24-hour clock shows when the given number of minutes has passed since hour:minute.

    The answer has two digits for the hour, a colon and two digits for the minute. A negative number of
    minutes looks back in time.

    >>> clock_after(9, 50, 25)
    '10:15'
    >>> clock_after(0, 0, -1)
    '23:59'
    """
    minutes = (hour * 60 + minute + passed) % (24 * 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


@easy.problem(
    base=[("4417123",), ("1234",), ("12345",), ("",), ("ab",), ("a b c d",)],
    draw=lambda rng: (text(rng, "0123456789ab ", 0, 12),),
)
def hide_middle(code: str) -> str:
    """Replace every character of code by a star (*), but for the first two and the last two.

    A code of four characters or fewer comes back unchanged.

    >>> hide_middle("4417123")
    '44***23'
    >>> hide_middle("1234")
    '1234'
    """
    if len(code) <= 4:
        return code
    return code[:2] + "*" * (len(code) - 4) + code[-2:]


@easy.problem(
    base=[
        ({"west": 30, "east": 20},),
        ({},),
        ({"south": 5, "north": 5},),
        ({"b": 2, "a": 3, "c": 2},),
        ({"only": 0},),
    ],
    draw=lambda rng: ({name: rng.randint(0, 4) for name in distinct(rng, ["north", "east", "south", "west", "roof"])},),
)
def nearest_exit(distances: dict[str, int]) -> str | None:
    """Return the name of the exit with the smallest distance, None if there is no exit.

    Of exits at the same distance, the one whose name comes first in the alphabet is taken.

    >>> nearest_exit({"west": 30, "east": 20})
    'east'
    >>> nearest_exit({"south": 5, "north": 5})
    'north'
    """
    return min(sorted(distances), key=lambda name: distances[name], default=None)


@easy.problem(
    base=[(30, False), (2, True), (3, False), (11, True), (12, True), (64, False), (65, False), (65, True), (0, False)],
    draw=lambda rng: (rng.choice([0, 1, 2, 3, 4, 10, 11, 12, 13, 40, 63, 64, 65, 66, 90]), rng.random() < 0.5),
    count=100,
)
def ticket_price(age: int, member: bool) -> int:
    """Return the price of a ticket.

    Children under 3 enter free, children from 3 to 11 pay 5, visitors of 65 and over pay 6 and everybody
    else pays 10. Members pay 2 less, but never less than 0.

    >>> ticket_price(30, False)
    10
    >>> ticket_price(2, True)
    0
    """
    if age < 3:
        price = 0
    elif age < 12:
        price = 5
    elif age >= 65:
        price = 6
    else:
        price = 10
    return max(0, price - 2) if member else price


@easy.problem(
    base=[("Hello",), ("",), ("AEIOU",), ("rhythm",), ("see yOu",), ("A Quick Fox JUMPS by, Vera!",)],
    draw=lambda rng: (text(rng, "aeiouAEIOUbdfhjklmnprstvwxyzBDFHLMNRSTWXYZ ", 0, 12),),
)
def echo_vowels(line: str) -> str:
    """Write every vowel of line twice and leave all other characters alone.

    The vowels are a, e, i, o and u, small or capital. A doubled vowel keeps its case.

    >>> echo_vowels("Hello")
    'Heelloo'
    >>> echo_vowels("AEIOU")
    'AAEEIIOOUU'
    """
    return "".join(letter * 2 if letter in "aeiouAEIOU" else letter for letter in line)


@easy.problem(
    base=[
        (["plum", "Pear", "fig"],),
        ([],),
        (["", "a"],),
        (["fig", "fig", "Fig"],),
        (["b", "a", "B", "b"],),
    ],
    draw=lambda rng: (some(rng, ["fig", "Fig", "pear", "plum", "Pear", "apple", "Apple", "", "x"], 0, 9),),
)
def index_by_initial(words: list[str]) -> dict[str, list[str]]:
    """Group words by their first letter.

    The keys are first letters in lower case. Each value is a list of the words as they are written
    and in the order in which they come, but a word that comes again (written the same way) is not repeated.
    Empty words are left out.

    >>> index_by_initial(["plum", "Pear", "fig"])
    {'p': ['plum', 'Pear'], 'f': ['fig']}
    >>> index_by_initial(["fig", "fig", "Fig"])
    {'f': ['fig', 'Fig']}
    """
    index: dict[str, list[str]] = {}
    for word in words:
        if word:
            entries = index.setdefault(word[0].lower(), [])
            if word not in entries:
                entries.append(word)
    return index


@easy.problem(
    base=[
        ({"fern": 2, "rose": 7, "moss": 4}, 4),
        ({}, 0),
        ({"b": 5, "a": 5, "c": 6}, 5),
        ({"fern": 1}, 2),
        ({"fern": 0, "ivy": 0}, 0),
    ],
    draw=lambda rng: (
        {name: rng.randint(0, 4) for name in distinct(rng, ["aloe", "fern", "ivy", "moss", "rose"])},
        rng.randint(0, 4),
    ),
)
def thirsty_plants(days_dry: dict[str, int], limit: int) -> list[str]:
    """List the plants that have been dry for at least limit days.

    The driest plants come first; plants that have been dry equally long come in alphabetical order.

    >>> thirsty_plants({"fern": 2, "rose": 7, "moss": 4}, 4)
    ['rose', 'moss']
    >>> thirsty_plants({"b": 5, "a": 5, "c": 6}, 5)
    ['c', 'a', 'b']
    """
    thirsty = [name for name, days in days_dry.items() if days >= limit]
    return sorted(thirsty, key=lambda name: (-days_dry[name], name))


@easy.problem(
    base=[
        ([20.5, None, 21.5],),
        ([],),
        ([None, None],),
        ([0.0, None, 1.0],),
        ([-3.25],),
        ([0.0, 0.0],),
    ],
    draw=lambda rng: (
        [rng.choice([None, 0.0, rng.randint(-80, 80) / 4, rng.randint(-80, 80) / 4]) for _ in range(rng.randint(0, 7))],
    ),
    atol=1e-9,
)
def mean_reading(readings: list[float | None]) -> float | None:
    """Return the mean of the readings that are not None, or None if there are no such readings.

    >>> mean_reading([20.5, None, 21.5])
    21.0
    >>> mean_reading([0.0, None, 1.0])
    0.5
    """
    known = [reading for reading in readings if reading is not None]
    return sum(known) / len(known) if known else None


@easy.problem(
    base=[(3, "go"), (0, "go"), (1, "fire"), (12, "")],
    draw=lambda rng: (rng.randint(0, 12), text(rng, "golift! ", 0, 4)),
    count=30,
)
def launch_text(seconds: int, word: str) -> str:
    """Write a countdown from seconds down to 1, then word.

    All parts are joined by a comma and a space. Nothing but word is left when seconds is 0.

    >>> launch_text(3, "go")
    '3, 2, 1, go'
    >>> launch_text(0, "go")
    'go'
    """
    return ", ".join([*map(str, range(seconds, 0, -1)), word])


def _maybe_rhyme(rng: Random) -> tuple[str, str, int]:
    """Mostly words that end alike."""
    end = text(rng, "ay", 0, 3)
    words = [text(rng, "br", 0, 2) + end for _ in range(2)]
    return rng.choice([words[0], words[0].upper()]), rng.choice([words[1], words[1].title()]), rng.randint(1, 3)


@easy.problem(
    base=[
        ("light", "Night", 4),
        ("light", "LIGHT", 2),
        ("at", "cat", 3),
        ("at", "cat", 2),
        ("cat", "at", 3),
        ("stone", "phone", 4),
        ("", "", 1),
    ],
    draw=_maybe_rhyme,
    count=80,
)
def rhymes(first: str, second: str, letters: int) -> bool:
    """Decide whether two words rhyme: whether they end in the same letters.

    The last `letters` letters are looked at, at least one. A word that has fewer never rhymes, and a word
    does not rhyme with itself. Small and capital letters are the same everywhere.

    >>> rhymes("light", "Night", 4)
    True
    >>> rhymes("light", "LIGHT", 2)
    False
    >>> rhymes("at", "cat", 3)
    False
    """
    first, second = first.lower(), second.lower()
    return first != second and first[-letters:] == second[-letters:]


@easy.problem(
    base=[
        ([{"milk": 1}, {"milk": 2, "eggs": 6}],),
        ([],),
        ([{}, {}],),
        ([{"tea": 2}, {"tea": -2}],),
        ([{"tea": -1}, {"tea": 3}],),
        ([{"tea": 0, "jam": -4}, {"jam": 1}],),
    ],
    draw=lambda rng: (
        [
            {name: rng.randint(-2, 3) for name in distinct(rng, ["eggs", "jam", "milk", "tea"])}
            for _ in range(rng.randint(0, 4))
        ],
    ),
)
def merge_shopping(lists: list[dict[str, int]]) -> dict[str, int]:
    """Make one shopping list of several: add up the amounts of each thing.

    Amounts may be negative (things to be taken off). What is 0 or less in the end is not on the list.

    >>> merge_shopping([{"milk": 1}, {"milk": 2, "eggs": 6}])
    {'milk': 3, 'eggs': 6}
    >>> merge_shopping([{"tea": 2}, {"tea": -2}])
    {}
    """
    total: dict[str, int] = {}
    for shopping in lists:
        for name, amount in shopping.items():
            total[name] = total.get(name, 0) + amount
    return {name: amount for name, amount in total.items() if amount > 0}


@easy.problem(
    base=[("hello you",), ("",), ("a-b-c",), ("123",), ("ABCD",), ("x1Y2z",)],
    draw=lambda rng: (text(rng, "abcXYZ -1", 0, 10),),
)
def wavy_text(line: str) -> str:
    """Write the letters of line in capital and small by turns, starting with a capital.

    Characters that are not letters stay as they are and do not take a turn.

    >>> wavy_text("hello you")
    'HeLlO yOu'
    >>> wavy_text("a-b-c")
    'A-b-C'
    """
    result = ""
    capital = True
    for character in line:
        if character.isalpha():
            result += character.upper() if capital else character.lower()
            capital = not capital
        else:
            result += character
    return result


@easy.problem(
    base=[
        (50, ["use", "charge"]),
        (95, ["charge", "use"]),
        (3, ["use", "charge"]),
        (40, []),
        (0, ["use", "idle"]),
        (1, ["idle", "idle"]),
        (100, ["charge"]),
    ],
    draw=lambda rng: (rng.choice([0, 2, 5, 9, 50, 90, 97, 100]), some(rng, ["use", "charge", "idle"], 0, 9)),
)
def battery_after(level: int, events: list[str]) -> int:
    """Return the level of a battery, in percent, after some events.

    "use" takes 7 from the level, "charge" adds 10 and "idle" takes 1. After each single event, a level
    under 0 becomes 0 and a level over 100 becomes 100.

    >>> battery_after(50, ["use", "charge"])
    53
    >>> battery_after(95, ["charge", "use"])
    93
    """
    change = {"use": -7, "charge": 10, "idle": -1}
    for event in events:
        level = min(100, max(0, level + change[event]))
    return level


@easy.problem(
    base=[
        ([(1, "ann"), (1, "bea"), (2, "ann")],),
        ([],),
        ([(3, "ann"), (3, "ann")],),
        ([(5, "bea"), (4, "bea"), (4, "cem"), (5, "cem")],),
        ([(1, "ann"), (2, "bea"), (1, "bea"), (3, "ann"), (3, "dov")],),
    ],
    draw=lambda rng: ([(rng.randint(1, 3), rng.choice(NAMES)) for _ in range(rng.randint(0, 9))],),
)
def came_back(visits: list[tuple[int, str]]) -> set[str]:
    """Return the names of all who came on more than one day.

    A visit is a day and a name. Visits are in no order, and somebody may come several times in one day.

    >>> came_back([(1, "ann"), (1, "bea"), (2, "ann")])
    {'ann'}
    >>> came_back([(3, "ann"), (3, "ann")])
    set()
    """
    days: dict[str, set[int]] = {}
    for day, name in visits:
        days.setdefault(name, set()).add(day)
    return {name for name, seen in days.items() if len(seen) > 1}


def _marked(rng: Random) -> tuple[str, str, str]:
    opening, closing = rng.choice([("(", ")"), ("|", "|"), ("((", ")"), ("(", "))"), ("ab", "ba"), ("aa", "aa")])
    return "".join(some(rng, [opening, closing, opening[0], closing[-1], "a", "x"], 0, 7)), opening, closing


@easy.problem(
    base=[
        ("size=[12] mm", "[", "]"),
        ("a]b[c]d]", "[", "]"),
        ("no marks", "[", "]"),
        ("open [ only", "[", "]"),
        ("say 'hi' and 'ho'", "'", "'"),
        ("<<>>", "<<", ">>"),
        ("only 'one", "'", "'"),
        ("", "[", "]"),
    ],
    draw=_marked,
    count=80,
)
def between(line: str, opening: str, closing: str) -> str | None:
    """Return what stands between the first opening mark and the first closing mark after it.

    The marks are not empty, may be several characters long and may be alike; a closing mark begins where
    the opening mark has ended, or later. Without an opening mark, or a closing mark after it, the result is None.

    >>> between("size=[12] mm", "[", "]")
    '12'
    >>> between("say 'hi' and 'ho'", "'", "'")
    'hi'
    >>> between("open [ only", "[", "]") is None
    True
    """
    start = line.find(opening)
    if start < 0:
        return None
    start += len(opening)
    end = line.find(closing, start)
    return None if end < 0 else line[start:end]


@easy.problem(
    base=[(8, "RRT"), (5, "L"), (5, "T"), (1, "LRT"), (6, ""), (7, "TT"), (4, "LLLLL")],
    draw=lambda rng: (rng.randint(1, 9), text(rng, "LRT", 0, 12)),
)
def ring_walk(size: int, moves: str) -> int:
    """Return the field on which a walk around a ring ends.

    The ring has the fields 0 to size - 1, and the walk starts on field 0. R goes one field on, L goes one
    field back (from 0 to the last field) and T goes on by half the size, rounded down.

    >>> ring_walk(8, "RRT")
    6
    >>> ring_walk(5, "L")
    4
    """
    step = {"R": 1, "L": -1, "T": size // 2}
    return sum(step[move] for move in moves) % size


def _nearly_staircase(rng: Random) -> list[int]:
    heights = [rng.randint(-3, 3)]
    for _ in range(rng.randint(0, 5)):
        heights.append(heights[-1] + rng.choice([1, 1, 1, 2, 2, 2, 2, rng.randint(-1, 3)]))
    return heights


@easy.problem(
    base=[([2, 3, 5],), ([2, 3, 3],), ([],), ([7],), ([1, 4],), ([3, 2, 1],), ([1, 3, 5, 6, 9],), ([-2, 0, 1],)],
    draw=lambda rng: (_nearly_staircase(rng),),
    count=60,
)
def is_staircase(heights: list[int]) -> bool:
    """Decide whether every height but the first is one or two more than the height before it.

    No heights, or a single one, make a staircase.

    >>> is_staircase([2, 3, 5])
    True
    >>> is_staircase([2, 3, 3])
    False
    """
    return all(heights[place] - heights[place - 1] in (1, 2) for place in range(1, len(heights)))


@easy.problem(
    base=[([212, 213],), ([],), ([5],), ([15],), ([4],), ([25, 35],), ([1, 1, 1, 1, 1],), ([1000, 95],)],
    draw=lambda rng: (integers(rng, 0, 60, 0, 5),),
)
def cash_rounded(prices: list[int]) -> int:
    """Return what is paid in cash for goods of the given prices, in cents.

    The sum of the prices, and not each of them, is rounded to the nearest ten cents. A sum that ends
    in 5 is rounded up. Prices are not negative.

    >>> cash_rounded([212, 213])
    430
    >>> cash_rounded([1, 1, 1, 1, 1])
    10
    """
    return (sum(prices) + 5) // 10 * 10


@easy.problem(
    base=[
        (["red", "big, round", "7"],),
        ([],),
        ([""],),
        (['say "hi"', "ok"],),
        (['"', ","],),
        (["", "", ""],),
        (["two words"],),
    ],
    draw=lambda rng: ([text(rng, 'ab ,"', 0, 3) for _ in range(rng.randint(0, 4))],),
)
def table_line(cells: list[str]) -> str:
    """Write cells as one line, with a comma (and no space) between two cells.

    A cell that has a comma or a double quote in it is put in double quotes, and each double quote inside
    it is written twice. All other cells are written as they are.

    >>> table_line(["red", "big, round", "7"])
    'red,"big, round",7'
    >>> print(table_line(['the "big" one', "ok"]))
    "the ""big"" one",ok
    """
    written = []
    for cell in cells:
        if "," in cell or '"' in cell:
            written.append('"' + cell.replace('"', '""') + '"')
        else:
            written.append(cell)
    return ",".join(written)
