"""Independent second implementations of the embedded problems, written from the statements: mostly slow and plain.

Where the inputs are too large for that, another efficient method. None shares an approach with its reference.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from fractions import Fraction
from functools import cache, cmp_to_key
from graphlib import CycleError, TopologicalSorter
from typing import Any

# tiny


def is_teen(age):
    return age in {13, 14, 15, 16, 17, 18, 19}


def final_letter(word):
    return "" if word == "" else list(word).pop()


def sum_without_first(numbers):
    return sum(number for place, number in enumerate(numbers) if place)


def halfway(left, right):
    return float(Fraction(left) + (Fraction(right) - Fraction(left)) / 2)


# easy


def tally_votes(votes):
    return dict(Counter(filter(None, (re.sub(r"^ +| +$", "", vote).casefold() for vote in votes))))


def clock_after(hour, minute, passed):
    return (datetime(2001, 5, 5, hour, minute) + timedelta(minutes=passed)).strftime("%H:%M")


def hide_middle(code):
    return "".join("*" if 2 <= place < len(code) - 2 else character for place, character in enumerate(code))


def nearest_exit(distances):
    best = None
    for name, distance in distances.items():
        if best is None or distance < distances[best] or (distance == distances[best] and name < best):
            best = name
    return best


def ticket_price(age, member):
    full = ([0] * 3 + [5] * 9 + [10] * 53 + [6] * 100)[age]
    return max(full - 2 * member, 0)


def echo_vowels(line):
    return re.sub("([aeiou])", r"\1\1", line, flags=re.IGNORECASE)


def index_by_initial(words):
    initials = {word[0].lower() for word in words if word}
    return {i: list(dict.fromkeys(word for word in words if word[:1].lower() == i)) for i in initials}


def thirsty_plants(days_dry, limit):
    result = []
    for days in range(max(days_dry.values(), default=0), limit - 1, -1):
        result += sorted(name for name in days_dry if days_dry[name] == days)
    return result


def mean_reading(readings):
    known = [Fraction(reading) for reading in readings if reading is not None]
    return float(statistics.mean(known)) if known else None


def launch_text(seconds, word):
    line = ""
    while seconds > 0:
        line += f"{seconds}, "
        seconds -= 1
    return line + word


def rhymes(first, second, letters):
    if first.lower() == second.lower() or len(first) < letters or len(second) < letters:
        return False
    pairs = list(zip(reversed(first.lower()), reversed(second.lower()), strict=False))
    return all(a == b for a, b in pairs[:letters])


def merge_shopping(lists):
    names = {name for shopping in lists for name in shopping}
    totals = {name: sum(shopping.get(name, 0) for shopping in lists) for name in names}
    return {name: totals[name] for name in names if totals[name] >= 1}


def wavy_text(line):
    before = [sum(map(str.isalpha, line[:place])) for place in range(len(line))]
    return "".join(c.lower() if turn % 2 else c.upper() for c, turn in zip(line, before, strict=True))


def battery_after(level, events):
    for event in events:
        match event:
            case "use":
                level -= min(7, level)
            case "charge":
                level += min(10, 100 - level)
            case "idle":
                level -= level > 0
    return level


def came_back(visits):
    return {a for (day, a), (other, b) in itertools.combinations(visits, 2) if a == b and day != other}


def between(line, opening, closing):
    found = re.search(f"{re.escape(opening)}(.*?){re.escape(closing)}", line)
    return found and found.group(1)


def ring_walk(size, moves):
    ring = list(range(size))
    for move in moves:
        if move == "L":
            ring = [ring[-1], *ring[:-1]]
        for _ in range({"R": 1, "L": 0, "T": size // 2}[move]):
            ring = [*ring[1:], ring[0]]
    return ring[0]


def is_staircase(heights):
    steps = {upper - lower for lower, upper in itertools.pairwise(heights)}
    return steps <= {1, 2}


def cash_rounded(prices):
    paid = sum(prices)
    while paid % 10:
        paid += 1 if paid % 10 >= 5 else -1
    return paid


def table_line(cells):
    # the csv module writes a lone empty cell as "", and quotes cells that are not asked for here
    if cells in ([], [""]):
        return ""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()


# medium


def meeting_gaps(meetings, start, end):
    free = [all(not a <= minute < b for a, b in meetings) for minute in range(start, end)]
    gaps, minute = [], start
    for is_free, run in itertools.groupby(free):
        length = len(list(run))
        if is_free:
            gaps.append((minute, minute + length))
        minute += length
    return gaps


def print_ranges(pages):
    wanted, parts = set(pages), []
    for page in range(min(wanted, default=0), max(wanted, default=-1) + 1):
        if page not in wanted or {page - 2, page - 1} <= wanted or {page - 1, page + 1} <= wanted:
            continue  # not the first page of a run, nor the second of two
        last = max(p for p in wanted if p >= page and wanted.issuperset(range(page, p + 1)))
        parts.append(f"{page}-{last}" if last - page >= 2 else str(page))
    return ",".join(parts)


def fair_shares(cents, weights):
    if not any(weights):
        return [0 for _ in weights]
    exact = [Fraction(cents * weight, sum(weights)) for weight in weights]
    shares = [math.floor(share) for share in exact]
    while sum(shares) < cents:
        losses = [e - s for e, s in zip(exact, shares, strict=True)]
        shares[losses.index(max(losses))] += 1
    return shares


def plank_ways(length, holes):
    def stretch(squares):
        """2 a + 3 b = squares: choose which of the a + b planks are the long ones."""
        return sum(
            math.comb((squares - 3 * b) // 2 + b, b) for b in range(squares // 3 + 1) if (squares - 3 * b) % 2 == 0
        )

    edges = [-1, *sorted(holes), length]
    return math.prod(stretch(right - left - 1) for left, right in itertools.pairwise(edges))


@cache
def digit_total_count(limit, total):
    if limit < 0 or total < 0:
        return 0
    if limit < 10:
        return int(total <= limit)
    return sum(digit_total_count((limit - last) // 10, total - last) for last in range(10))


def frog_count(day):
    """x^day modulo x^2 - x - 3, on a(n) + 1/3, which makes the recurrence homogeneous."""
    modulus = 1000003
    third = pow(3, -1, modulus)

    def times(p, q):
        low, middle, high = p[0] * q[0], p[0] * q[1] + p[1] * q[0], p[1] * q[1]
        return (low + 3 * high) % modulus, (middle + high) % modulus

    power = (1, 0)
    for bit in f"{day:b}":
        power = times(power, power)
        if bit == "1":
            power = times(power, (0, 1))
    return (power[0] * (2 + third) + power[1] * (3 + third) - third) % modulus


def busiest_minute(visits):
    best = None
    for minute in sorted(arrival for arrival, _ in visits):  # a crowd can only begin to be largest at an arrival
        present = len([1 for a, b in visits if a <= minute <= b])
        if best is None or best[1] < present:
            best = (minute, present)
    return best


def run_stack(program):
    def run(stack, rest):
        if not rest:
            return stack
        match rest[0].split(), stack:
            case ["push", number], _:
                stack = [*stack, int(number)]
            case ["dup"], [*low, x]:
                stack = [*low, x, x]
            case ["drop"], [*low, x]:
                stack = low
            case ["swap"], [*low, x, y]:
                stack = [*low, y, x]
            case ["sub"], [*low, x, y]:
                stack = [*low, x - y]
            case ["mul"], [*low, x, y]:
                stack = [*low, x * y]
            case _:
                return None
        return run(stack, rest[1:])

    return run([], program)


def text_table(rows):
    full = [row + [""] * (max(map(len, rows)) - len(row)) for row in rows]
    for column in range(len(full[0]) if full else 0):
        while len({len(row[column]) for row in full}) > 1:
            shortest = min(full, key=lambda row: len(row[column]))
            shortest[column] += " "
    return [re.sub(" +$", "", "  ".join(row)) for row in full]


def trimmed_mean(values, percent):
    kept = list(values)
    for _ in range(math.floor(Fraction(percent, 100) * len(values))):
        kept.remove(min(kept))
        kept.remove(max(kept))
    return float(sum(map(Fraction, kept)) / len(kept))


def interpolate(points, x):
    left = max((p for p in points if p[0] <= x), default=None)
    right = min((p for p in points if p[0] >= x), default=None)
    if left is None or right is None or left == right:
        return (left or right)[1]
    (a, low), (b, high) = [tuple(map(Fraction, p)) for p in (left, right)]
    share = (Fraction(x) - a) / (b - a)
    return float((1 - share) * low + share * high)


def follow_links(links, start):
    def page(steps):
        here = start
        for _ in range(steps):
            here = links.get(here) if here is not None else None
        return here

    way = [page(steps) for steps in range(len(links) + 2)]
    return list(dict.fromkeys(p for p in way if p is not None)), None not in way


def flooded(grid, hours):
    """Hour by hour, every cell from the map of the hour before."""

    def cell(y, x, old):
        around = [
            old[b][a]
            for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            if b in range(len(old)) and a in range(len(old[b]))
        ]
        return "~" if old[y][x] == "." and "~" in around else old[y][x]

    for _ in range(hours):
        new = ["".join(cell(y, x, grid) for x in range(len(row))) for y, row in enumerate(grid)]
        if new == grid:
            break
        grid = new
    return grid


def dressing_order(rules):
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for before, after in rules:
        sorter.add(before)
        sorter.add(after, before)
    try:
        sorter.prepare()
    except CycleError:
        return None
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()])
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order


def best_training(gains, rest):
    """From the last day on, with memory; all choices where they are few."""
    if len(gains) <= 10:
        choices = itertools.chain.from_iterable(
            itertools.combinations(range(len(gains)), size) for size in range(len(gains) + 1)
        )
        fine = (c for c in choices if all(b - a > rest for a, b in itertools.pairwise(c)))
        return max(sum(gains[day] for day in choice) for choice in fine)

    @cache
    def from_day(day):
        return max(from_day(day + 1), gains[day] + from_day(day + rest + 1)) if day < len(gains) else 0

    return from_day(0)


def balance_weights(load):
    """The weight that brings what is left within half of the next power, from the heaviest on."""
    answer, reach = "", 0
    while abs(load) > reach:
        reach = 3 * reach + 1
    while reach:
        power, reach = 2 * (reach // 3) + 1, reach // 3
        sign = (load > reach) - (load < -reach)
        load -= sign * power
        answer += "-0+"[sign + 1]
    return answer or "0"


def version_order(versions):
    def compare(first, second):
        parts = itertools.zip_longest(first.split("."), second.split("."), fillvalue="0")
        for a, b in parts:
            if int(a) != int(b):
                return int(a) - int(b)
        return 0

    return sorted(versions, key=cmp_to_key(compare))


def changed_settings(old, new):
    def ask(settings, path):
        for key in path:
            settings = settings.get(key) if isinstance(settings, dict) else None
        return None if isinstance(settings, dict) else settings

    paths = [path for size in (1, 2, 3) for path in itertools.product("abc", repeat=size)] + [("size",), ("color",)]
    answers: dict[str, Any] = defaultdict(tuple)
    for path in paths:
        if ask(old, path) != ask(new, path):
            answers[".".join(path)] = (ask(old, path), ask(new, path))
    return dict(answers)


OPINIONS: dict[str, Callable[..., Any]] = {
    opinion.__name__: opinion
    for opinion in (
        is_teen, final_letter, sum_without_first, halfway, tally_votes, clock_after, hide_middle, nearest_exit,
        ticket_price, echo_vowels, index_by_initial, thirsty_plants, mean_reading, launch_text, rhymes, merge_shopping,
        wavy_text, battery_after, came_back, between, ring_walk, is_staircase, cash_rounded, table_line, meeting_gaps,
        print_ranges, fair_shares, plank_ways, digit_total_count, frog_count, busiest_minute, run_stack, text_table,
        trimmed_mean, interpolate, follow_links, flooded, dressing_order, best_training, balance_weights, version_order,
        changed_settings,
    )
}  # fmt: skip
