"""Medium problems: several rules at once, or an idea without which the larger inputs take for ever."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from ra3kit.evaluation.problems.draw import distinct, integers, some, text
from ra3kit.evaluation.problems.group import Group

medium = Group("medium")


def _intervals(rng: Random, low: int, high: int, most: int) -> list[tuple[int, int]]:
    """Pairs (a, b) with a < b, of 1 to 4 apart, in no order."""
    starts = integers(rng, low, high, 0, most)
    return [(start, start + rng.randint(1, 4)) for start in starts]


@medium.problem(
    base=[
        ([(10, 12), (9, 10)], 8, 14),
        ([], 3, 5),
        ([(0, 9)], 3, 5),
        ([(1, 6), (2, 3), (8, 9)], 0, 10),
        ([(0, 2), (7, 12)], 1, 8),
        ([(20, 22), (0, 1)], 5, 9),
        ([(1, 2), (6, 9)], 3, 6),
    ],
    draw=lambda rng: (_intervals(rng, -2, 16, 6), rng.randint(0, 4), rng.randint(8, 15)),
    count=80,
)
def meeting_gaps(meetings: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """Return the times between start and end that are free of meetings, in order.

    A meeting (a, b) takes the time from a to b, and a < b. Meetings come in no order, may overlap and may
    lie partly or wholly outside of the time from start to end (start < end). Free times are as long as
    possible and never empty: meetings (1, 2) and (2, 3) leave nothing free between them.

    >>> meeting_gaps([(10, 12), (9, 10)], 8, 14)
    [(8, 9), (12, 14)]
    >>> meeting_gaps([(0, 9)], 3, 5)
    []
    """
    gaps = []
    free = start
    for begin, finish in sorted(meetings):
        if free < begin and free < end:
            gaps.append((free, min(begin, end)))
        free = max(free, finish)
    if free < end:
        gaps.append((free, end))
    return gaps


@medium.problem(
    base=[
        ([7, 1, 3, 2, 8],),
        ([],),
        ([4],),
        ([5, 5, 6, 6],),
        ([1, 2, 3, 4, 10, 11, 12],),
        ([3, 1],),
        ([9, 10, 11, 99, 100],),
    ],
    draw=lambda rng: (integers(rng, 1, 14, 0, 12),),
    count=60,
)
def print_ranges(pages: list[int]) -> str:
    """Write the numbers of pages for a print dialogue: in order, each once, joined by commas.

    Three or more pages in a row are written as first-last. Two in a row are written as two pages.
    The given pages may be in any order and may be repeated.

    >>> print_ranges([7, 1, 3, 2, 8])
    '1-3,7,8'
    >>> print_ranges([5, 5, 6, 6])
    '5,6'
    """
    runs: list[list[int]] = []
    for page in sorted(set(pages)):
        if runs and runs[-1][-1] == page - 1:
            runs[-1].append(page)
        else:
            runs.append([page])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


@medium.problem(
    base=[
        (100, [1, 1, 1]),
        (10, [0, 0]),
        (5, []),
        (7, [3, 0, 4]),
        (3, [0]),
        (1, [1, 1, 2]),
        (11, [5, 3, 2, 1]),
        (10**18 + 1, [1, 2, 4]),
        (0, [2, 3]),
    ],
    draw=lambda rng: (rng.choice([rng.randint(0, 40), rng.randint(0, 10**18)]), integers(rng, 0, 9, 0, 6)),
    count=60,
)
def fair_shares(cents: int, weights: list[int]) -> list[int]:
    """Divide cents in the proportion of weights, in whole cents and with nothing left over.

    First, everybody gets cents * weight / sum of the weights, rounded down. The cents that are left then
    go, one each, to those who lost most by the rounding; of those who lost the same, to whoever comes
    first. Nobody gets anything if all weights are 0 (or there are none). Nothing is negative, and cents may
    have twenty digits.

    >>> fair_shares(100, [1, 1, 1])
    [34, 33, 33]
    >>> fair_shares(1, [1, 1, 2])
    [0, 0, 1]
    """
    whole = sum(weights)
    if whole == 0:
        return [0] * len(weights)
    shares = [cents * weight // whole for weight in weights]
    by_loss = sorted(range(len(weights)), key=lambda place: -(cents * weights[place] % whole))
    for place in by_loss[: cents - sum(shares)]:
        shares[place] += 1
    return shares


def _path(rng: Random) -> tuple[int, list[int]]:
    """A path whose stretches between holes are mostly not of length 1, which could not be covered."""
    length, holes = 0, []
    for _ in range(rng.randint(0, 4)):
        length += rng.choice([0, 2, 3, 4, 5, 6, 7, 8, 9, rng.randint(0, 20)])
        holes.append(length)
        length += 1
    rng.shuffle(holes)
    return length + rng.choice([0, 2, 5, 6, 7, 8, 10]), holes


@medium.problem(
    base=[(5, []), (0, []), (1, []), (1, [0]), (6, [2]), (7, []), (12, [11, 5]), (90, []), (200, [60, 7])],
    draw=_path,
)
def plank_ways(length: int, holes: list[int]) -> int:
    """Count the ways to cover a path of squares with planks that are 2 or 3 squares long.

    The squares are numbered from 0 to length - 1. Every square has to be covered by exactly one plank,
    but for the squares in holes (in any order), which no plank may cover. Planks lie along the path and not
    beyond its ends. An empty path is covered in 1 way. The path may have hundreds of squares.

    >>> plank_ways(5, [])
    2
    >>> plank_ways(6, [2])
    1
    >>> plank_ways(1, [])
    0
    """
    ways = [1]
    solid = 0
    for square in range(length):
        if square in holes:
            ways.append(ways[square])
            solid = 0
        else:
            solid += 1
            ways.append(sum(ways[square + 1 - size] for size in (2, 3) if size <= solid))
    return ways[length]


@medium.problem(
    base=[(20, 2), (0, 0), (0, 1), (9, 9), (100, 1), (999, 27), (999, 28), (10**15, 45), (987654321987654, 60)],
    draw=lambda rng: (
        rng.choice([rng.randint(0, 99), rng.randint(0, 5000), rng.randint(0, 10**15)]),
        rng.randint(0, 30),
    ),
)
def digit_total_count(limit: int, total: int) -> int:
    """Count the integers from 0 to limit, both included, whose decimal digits add up to total.

    Neither limit nor total is negative; limit may be as large as 10 ** 15.

    >>> digit_total_count(20, 2)
    3
    >>> digit_total_count(9, 9)
    1
    """
    smaller: Counter[int] = Counter()
    same = 0
    for digit in map(int, str(limit)):
        following: Counter[int] = Counter()
        for partial, count in smaller.items():
            for extra in range(10):
                following[partial + extra] += count
        for extra in range(digit):
            following[same + extra] += 1
        smaller = following
        same += digit
    return smaller[total] + (same == total)


@medium.problem(
    base=[(0,), (1,), (2,), (3,), (30,), (10**6,), (10**18,), (123456789123456789,)],
    draw=lambda rng: (rng.choice([rng.randint(0, 60), rng.randint(0, 60), rng.randint(0, 10**18)]),),
)
def frog_count(day: int) -> int:
    """Return how many frogs live in a pond on the given day, modulo 1000003.

    There are 2 frogs on day 0 and 3 frogs on day 1. On each day after that there are as many as on the day
    before, plus three times as many as two days before, plus one. The day may be as late as 10 ** 18.

    >>> frog_count(2)
    10
    >>> frog_count(3)
    20
    """
    modulus = 1000003

    def product(a: list[list[int]], b: list[list[int]]) -> list[list[int]]:
        columns = list(zip(*b, strict=True))
        return [[sum(x * y for x, y in zip(row, column, strict=True)) % modulus for column in columns] for row in a]

    power = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    step = [[1, 3, 1], [1, 0, 0], [0, 0, 1]]
    while day:
        if day % 2:
            power = product(power, step)
        step = product(step, step)
        day //= 2
    return (power[1][0] * 3 + power[1][1] * 2 + power[1][2]) % modulus


@medium.problem(
    base=[
        ([(1, 4), (3, 6), (6, 8)],),
        ([],),
        ([(5, 5)],),
        ([(1, 2), (3, 4)],),
        ([(1, 2), (2, 3)],),
        ([(9, 12), (1, 3), (2, 2), (10, 11)],),
        ([(0, 10**9), (10**8, 2 * 10**9), (1, 7)],),
    ],
    draw=lambda rng: ([(begin, begin + rng.choice([0, 1, 2, 5, 10**9])) for begin in integers(rng, 0, 12, 0, 7)],),
    count=60,
)
def busiest_minute(visits: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the minute in which most visitors are there, and how many they are; None without visitors.

    A visit is the minute of arrival and the minute of leaving, which may be the same; the visitor is there
    in both of these minutes and in all between them. Visits are in no order, and minutes may be as large
    as 10 ** 10. Of several such minutes, the earliest is returned.

    >>> busiest_minute([(1, 4), (3, 6), (6, 8)])
    (3, 2)
    >>> busiest_minute([(1, 2), (2, 3)])
    (2, 2)
    """
    change: Counter[int] = Counter()
    for arrival, leaving in visits:
        change[arrival] += 1
        change[leaving + 1] -= 1
    best = None
    present = 0
    for minute in sorted(change):
        present += change[minute]
        if best is None or present > best[1]:
            best = (minute, present)
    return best


def _commands(rng: Random) -> list[str]:
    pushes = [f"push {rng.randint(-3, 12)}" for _ in range(rng.randint(0, 4))]
    return pushes + some(rng, ["push 2", "push -1", "push 5", "sub", "mul", "dup", "swap", "drop"], 0, 7)


@medium.problem(
    base=[
        (["push 7", "push 2", "sub"],),
        ([],),
        (["push 1", "mul"],),
        (["dup"],),
        (["drop", "push 1"],),
        (["push -3", "dup", "mul", "push 4", "swap"],),
        (["push 1", "push 2", "push 3", "swap", "drop"],),
        (["push 12", "swap"],),
        (["push 5", "drop"],),
    ],
    draw=lambda rng: (_commands(rng),),
    count=80,
)
def run_stack(program: list[str]) -> list[int] | None:
    """Run a program on a stack of integers and return the stack, from bottom to top.

    "push N" puts the integer N on top of the stack, "dup" puts a copy of the top number on top, "drop"
    takes the top number away and "swap" exchanges the two top numbers. "sub" and "mul" take the two top
    numbers away and put back the lower one minus the upper one, or their product.

    The stack is empty at first. If a command needs more numbers than there are, the result is None.

    >>> run_stack(["push 7", "push 2", "sub"])
    [5]
    >>> run_stack(["push 1", "mul"]) is None
    True
    """
    needs = {"dup": 1, "drop": 1, "swap": 2, "sub": 2, "mul": 2}
    stack: list[int] = []
    for command in program:
        if len(stack) < needs.get(command, 0):
            return None
        if command == "dup":
            stack.append(stack[-1])
        elif command == "drop":
            stack.pop()
        elif command in needs:
            upper, lower = stack.pop(), stack.pop()
            stack += {"swap": [upper, lower], "sub": [lower - upper], "mul": [lower * upper]}[command]
        else:
            stack.append(int(command.split()[1]))
    return stack


@medium.problem(
    base=[
        ([["name", "age"], ["Jo", "7"]],),
        ([],),
        ([[], []],),
        ([["a"], ["bbb", "c"], ["", "", "d"]],),
        ([["x", ""], ["", "yy"]],),
        ([["long cell", "z"], ["s"]],),
    ],
    draw=lambda rng: ([[text(rng, "ab", 0, 4) for _ in range(rng.randint(0, 3))] for _ in range(rng.randint(0, 4))],),
    count=60,
)
def text_table(rows: list[list[str]]) -> list[str]:
    """Lay out rows of cells as lines of text whose columns stand one below the other.

    A column is as wide as its widest cell; narrower cells are filled with spaces on the right. There are
    two spaces between columns. Rows may have fewer cells than others: the missing cells, at the right, are
    empty. No line ends in a space, and there is one line for each row. Cells have no spaces at their ends.

    >>> text_table([["name", "age"], ["Jo", "7"]])
    ['name  age', 'Jo    7']
    >>> text_table([["a"], ["bbb", "c"]])
    ['a', 'bbb  c']
    """
    columns = max((len(row) for row in rows), default=0)
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(columns)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]


@medium.problem(
    base=[
        ([9.0, 1.0, 2.0, 100.0, 3.0], 20),
        ([4.5], 49),
        ([1.0, 2.0], 0),
        ([5.0, 1.0, 3.0], 33),
        ([5.0, 1.0, 3.0], 34),
        ([-1.0, -8.0, 7.5, 7.5, 0.25, 3.0, 2.0, 2.0], 25),
        ([float(value) for value in range(100, 0, -1)], 29),
    ],
    draw=lambda rng: ([rng.randint(-40, 400) / 8 for _ in range(rng.randint(1, 12))], rng.randint(0, 49)),
    atol=1e-8,
)
def trimmed_mean(values: list[float], percent: int) -> float:
    """Return the mean of values without the smallest and the largest ones.

    As many as percent per cent of the values, rounded down to a whole number, are left out at each end.
    The values are in any order, there is at least one, and percent is from 0 to 49.

    >>> trimmed_mean([9.0, 1.0, 2.0, 100.0, 3.0], 20)
    4.666666666666667
    >>> trimmed_mean([1.0, 2.0], 0)
    1.5
    """
    left_out = len(values) * percent // 100
    kept = sorted(values)[left_out : len(values) - left_out]
    return sum(kept) / len(kept)


def _curve(rng: Random) -> tuple[list[tuple[float, float]], float]:
    places = distinct(rng, range(-6, 7), 1, 5)
    return [(float(x), rng.randint(-20, 20) / 4) for x in places], rng.randint(-16, 16) / 2


@medium.problem(
    base=[
        ([(0.0, 1.0), (2.0, 5.0)], 1.5),
        ([(3.0, -1.0)], 100.0),
        ([(4.0, 0.0), (0.0, 8.0), (2.0, 2.0)], 1.0),
        ([(4.0, 0.0), (0.0, 8.0), (2.0, 2.0)], 2.0),
        ([(0.0, 1.0), (2.0, 5.0)], -1.0),
        ([(0.0, 1.0), (2.0, 5.0)], 7.5),
        ([(-1.0, 3.0), (0.5, -3.0)], 0.1),
    ],
    draw=_curve,
    count=60,
    atol=1e-6,
)
def interpolate(points: list[tuple[float, float]], x: float) -> float:
    """Return the height at x of the line that joins the given points (x, y) from left to right.

    Between two neighbouring points the line is straight. Left of the first point the height is that
    point's, and right of the last point it is the last one's. There is at least one point, the points come in
    any order, and no two have the same x.

    >>> interpolate([(0.0, 1.0), (2.0, 5.0)], 1.5)
    4.0
    >>> interpolate([(0.0, 1.0), (2.0, 5.0)], 7.5)
    5.0
    """
    ordered = sorted(points)
    if x <= ordered[0][0]:
        return ordered[0][1]
    for place in range(1, len(ordered)):
        (left, low), (right, high) = ordered[place - 1], ordered[place]
        if x <= right:
            return low + (high - low) * (x - left) / (right - left)
    return ordered[-1][1]


@medium.problem(
    base=[
        ({"a": "b", "b": "c"}, "a"),
        ({"a": "b", "b": "a"}, "a"),
        ({}, "x"),
        ({"a": "a"}, "a"),
        ({"a": "b", "b": "c", "c": "b"}, "a"),
        ({"a": "b"}, "b"),
    ],
    draw=lambda rng: ({page: rng.choice("abcdefg") for page in distinct(rng, "abcdef")}, rng.choice("abcdef")),
)
def follow_links(links: dict[str, str], start: str) -> tuple[list[str], bool]:
    """Follow links from page to page and return the pages, in order, and whether the way runs in a circle.

    links has, for some pages, the page that they link to. The way begins at start and ends at a page
    without a link (False), or when the next page has been there before (True). Each page is listed once.

    >>> follow_links({"a": "b", "b": "c"}, "a")
    (['a', 'b', 'c'], False)
    >>> follow_links({"a": "b", "b": "a"}, "a")
    (['a', 'b'], True)
    """
    way = [start]
    while way[-1] in links:
        following = links[way[-1]]
        if following in way:
            return way, True
        way.append(following)
    return way, False


def _map(rng: Random) -> tuple[list[str], int]:
    width = rng.randint(1, 5)
    grid = ["".join(some(rng, "......XX~", width, width)) for _ in range(rng.randint(1, 5))]
    return grid, rng.choice([0, 1, 1, 2, 2, 3, 10**12])


@medium.problem(
    base=[
        (["~..", ".X."], 1),
        ([], 3),
        (["..", ".."], 5),
        (["~.X.", "....", "...~"], 0),
        (["~.....", "XXXXX.", "......"], 5),
        (["~.X.", "XX..", "...."], 10**12),
        ([".....", "..~..", "....."], 2),
    ],
    draw=_map,
    count=60,
)
def flooded(grid: list[str], hours: int) -> list[str]:
    """Return the map of a valley after some hours of rising water.

    In the map, ~ is water, . is dry land and X is rock. Within an hour, land that is left of, right of,
    above or below a place that was water at the beginning of the hour becomes water; rock always stays rock.
    All rows are of the same length. The number of hours may be as large as 10 ** 12.

    >>> flooded(["~..", ".X."], 1)
    ['~~.', '~X.']
    >>> flooded(["~.X.", "XX.."], 9)
    ['~~X.', 'XX..']
    """
    cells = [list(row) for row in grid]
    shore = [(y, x) for y, row in enumerate(grid) for x, cell in enumerate(row) if cell == "~"]
    while shore and hours:
        hours -= 1
        wet = []
        for y, x in shore:
            for below, right in ((y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x)):
                if 0 <= below < len(cells) and 0 <= right < len(cells[0]) and cells[below][right] == ".":
                    cells[below][right] = "~"
                    wet.append((below, right))
        shore = wet
    return ["".join(row) for row in cells]


@medium.problem(
    base=[
        ([("sock", "shoe"), ("shirt", "coat")],),
        ([],),
        ([("a", "b"), ("b", "a")],),
        ([("a", "a")],),
        ([("b", "d"), ("c", "a")],),
        ([("b", "a"), ("b", "a"), ("a", "c")],),
        ([("x", "a"), ("b", "x"), ("c", "d"), ("d", "c")],),
    ],
    draw=lambda rng: ([(rng.choice("abcd"), rng.choice("cdefg")) for _ in range(rng.randint(0, 7))],),
    count=60,
)
def dressing_order(rules: list[tuple[str, str]]) -> list[str] | None:
    """Put all clothes named in rules into an order in which they can be put on, None if there is none.

    A rule (a, b) says that a has to be put on before b; a rule may be given twice. Whenever several
    clothes can be put on next, the first of them in alphabetical order is put on.

    >>> dressing_order([("sock", "shoe"), ("shirt", "coat")])
    ['shirt', 'coat', 'sock', 'shoe']
    >>> dressing_order([("a", "b"), ("b", "a")]) is None
    True
    """
    left = {name for rule in rules for name in rule}
    order = []
    while left:
        blocked = {after for before, after in rules if before in left}
        ready = left - blocked
        if not ready:
            return None
        order.append(min(ready))
        left.remove(order[-1])
    return order


@medium.problem(
    base=[
        ([4, 5, 4], 1),
        ([], 2),
        ([-3, -1], 1),
        ([3, 2, 5, 10, 7], 0),
        ([9, 1, 1, 9, 1, 9], 2),
        ([1, 2, 3], 10),
        ([(7 * day) % 23 - 5 for day in range(120)], 1),
        ([(5 * day) % 17 for day in range(150)], 3),
    ],
    draw=lambda rng: (integers(rng, -5, 12, 0, 10), rng.randint(0, 4)),
    count=60,
)
def best_training(gains: list[int], rest: int) -> int:
    """Return the largest total gain of a choice of days to train on.

    gains has the gain of training on each day, in order; it may be negative. Between two days of training
    there must be at least `rest` days without. Not training at all is allowed and gains 0. There may be
    hundreds of days.

    >>> best_training([4, 5, 4], 1)
    8
    >>> best_training([9, 1, 1, 9, 1, 9], 2)
    18
    """
    best = [0]
    for day, gain in enumerate(gains):
        best.append(max(best[day], gain + best[max(0, day - rest)]))
    return best[-1]


@medium.problem(
    base=[(5,), (0,), (1,), (-1,), (2,), (3,), (-14,), (365,), (10**30,)],
    draw=lambda rng: (rng.choice([rng.randint(-40, 40), rng.randint(-(10**6), 10**6), rng.randint(0, 10**24)]),),
)
def balance_weights(load: int) -> str:
    """Say how to weigh a load on a balance with one weight each of 1, 3, 9, 27 and so on (powers of three).

    Return one character for each weight, the heaviest one that is used first: + if the weight is on the side
    opposite to the load (it counts), - if it is on the side of the load (it counts against) and 0 if
    it isn't used. What counts minus what counts against is the load. For load 0 the answer is "0". A
    negative load works the same way. There is exactly one answer.

    >>> balance_weights(5)
    '+--'
    >>> balance_weights(3)
    '+0'
    >>> balance_weights(-1)
    '-'
    """
    signs = ""
    while load:
        signs = "0+-"[load % 3] + signs
        load = (load + 1) // 3
    return signs or "0"


@medium.problem(
    base=[
        (["1.10", "1.9", "1.2"],),
        ([],),
        (["2.0", "2", "2.0.0"],),
        (["1.0.1", "1", "0.9"],),
        (["10", "9.9.9", "010"],),
        (["0", "0.0", "0.1"],),
    ],
    draw=lambda rng: ([".".join(some(rng, ["0", "0", "1", "2", "10", "01"], 1, 4)) for _ in range(rng.randint(0, 7))],),
    count=60,
)
def version_order(versions: list[str]) -> list[str]:
    """Sort version numbers from the oldest to the newest.

    A version is made of whole numbers with dots between them; they are compared as numbers, from left to right
    (1.9 is older than 1.10). Numbers that are missing at the end count as 0, so 2, 2.0 and 2.00 are the
    same version. Strings that are the same version stay in the order in which they are given.

    >>> version_order(["1.10", "1.9", "1.2"])
    ['1.2', '1.9', '1.10']
    >>> version_order(["2.0", "2", "1.0.1"])
    ['1.0.1', '2.0', '2']
    """

    def key(version: str) -> list[int]:
        numbers = [int(part) for part in version.split(".")]
        while numbers and numbers[-1] == 0:
            numbers.pop()
        return numbers

    return sorted(versions, key=key)


def _settings(rng: Random, depth: int = 2) -> dict[str, Any]:
    return {
        key: _settings(rng, depth - 1) if depth and rng.random() < 0.4 else rng.choice([0, 1, 2, "", "on"])
        for key in distinct(rng, "abc", 0, 3)
    }


@medium.problem(
    base=[
        ({"size": 1, "color": "red"}, {"size": 2, "color": "red"}),
        ({}, {}),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": 1}}, {"a": 5}),
        ({"a": {"b": {"c": 1}}}, {}),
        ({"a": {}}, {"a": 0}),
        ({"a": {}}, {"b": {}}),
    ],
    draw=lambda rng: (_settings(rng), _settings(rng)),
    count=80,
)
def changed_settings(old: dict, new: dict) -> dict[str, tuple]:
    """Compare two sets of settings and return, for each that differs, the old and the new value.

    A value is an integer, a string or again a dict of settings. A setting inside other dicts is named by
    its keys from the outside in, with dots between them, as in "window.size"; keys have no dots. A setting that
    is missing on one side has the value None there. Only integers and strings are compared and returned,
    never dicts: an empty dict is as good as nothing.

    >>> changed_settings({"size": 1, "color": "red"}, {"size": 2, "color": "red"})
    {'size': (1, 2)}
    >>> changed_settings({"a": {"b": 1}}, {"a": 5})
    {'a.b': (1, None), 'a': (None, 5)}
    """

    def flat(settings: dict, prefix: str) -> dict:
        values = {}
        for key, value in settings.items():
            if isinstance(value, dict):
                values.update(flat(value, f"{prefix}{key}."))
            else:
                values[prefix + key] = value
        return values

    before, after = flat(old, ""), flat(new, "")
    names = [*before, *(name for name in after if name not in before)]
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
