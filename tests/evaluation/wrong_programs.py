"""Plausible wrong programs for every embedded problem; its tests have to catch each of them.

A program is written as what is put in place of a part of the reference's body, (old, new), or as a whole body. Each
stands for one mistake, most of them such as a model makes: an edge case or a clause of the statement forgotten, off by
one, ties broken the other way, a popular short cut.
"""

from __future__ import annotations

import textwrap

from ra3kit.verify.problem import Calls, Problem

Change = tuple[str, str] | str

CHANGES: dict[str, list[Change]] = {
    # tiny
    "seats_left": [
        ("total - taken", "taken - total"),
        ("total - taken", "max(0, total - taken)"),
        ("total - taken", "abs(total - taken)"),
        ("total - taken", "total + taken"),
    ],
    "final_letter": [
        ("word[-1:]", "word[-1]"),
        ("word[-1:]", "word[:1]"),
        ("word[-1:]", "word[:-1]"),
        ("word[-1:]", "word.strip()[-1:]"),
    ],
    "double_plus_one": [
        ("2 * number + 1", "2 * number"),
        ("2 * number + 1", "2 * (number + 1)"),
        ("2 * number + 1", "number ** 2 + 1"),
        ("2 * number + 1", "abs(2 * number + 1)"),
    ],
    "is_teen": [
        ("13 <= age", "13 < age"),
        ("age <= 19", "age < 19"),
        ("age <= 19", "age <= 20"),
        ("13 <= age <= 19", "age >= 13"),
    ],
    "greeting": [
        ("Hello, {name}!", "Hello {name}!"),
        ("Hello, {name}!", "Hello, {name}"),
        ("Hello, {name}!", "hello, {name}!"),
        ("{name}", "{name.title()}"),
        ('f"Hello, {name}!"', '"Hello, name!"'),
        "print(f'Hello, {name}!')",
    ],
    "halfway": [
        ("(left + right) / 2", "left + right / 2"),
        ("/ 2", "// 2"),
        ("left + right", "right - left"),
        ("(left + right) / 2", "round((left + right) / 2)"),
    ],
    "shout": [
        ("message.upper()", "message"),
        (' + "!"', ""),
        ("message.upper()", "message.capitalize()"),
        ("message.upper()", 'message.upper().rstrip("!")'),
    ],
    "sum_without_first": [
        ("numbers[1:]", "numbers"),
        ("numbers[1:]", "numbers[:-1]"),
        ("numbers[1:]", "numbers[2:]"),
        ("sum(numbers[1:])", "sum(numbers) - numbers[0]"),
        "return sum(number for number in numbers if number != numbers[0])",
    ],
    "to_minutes": [
        ("hours * 60 + minutes", "hours + minutes * 60"),
        ("60", "24"),
        ("hours * 60 + minutes", "hours * 60"),
        ("hours * 60 + minutes", "hours * 60 + minutes % 60"),
    ],
    "swapped": [
        ("pair[1], pair[0]", "pair[0], pair[1]"),
        ("pair[1], pair[0]", "[pair[1], pair[0]]"),
        ("pair[1], pair[0]", "pair[1], str(pair[0])"),
    ],
    # easy
    "tally_votes": [
        (".lower()", ""),
        (".strip()", ""),
        ("if name:", "if True:"),
        ("if name:", "if vote:"),
        (".lower()", ".title()"),
        ("counts.get(name, 0) + 1", "1"),
        (".strip().lower()", '.lower().replace(" ", "")'),
    ],
    "clock_after": [
        (" % (24 * 60)", ""),
        ("minutes // 60:02d", "minutes // 60"),
        ("minutes % 60:02d", "minutes % 60"),
        ("24 * 60", "12 * 60"),
        ("+ passed", "+ abs(passed)"),
        'return f"{(hour + passed // 60) % 24:02d}:{(minute + passed) % 60:02d}"',
    ],
    "hide_middle": [
        ("len(code) <= 4:", "not code:"),
        ("len(code) - 4", "len(code) - 3"),
        ("code[:2]", "code[:1]"),
        ('"*" * (len(code) - 4)', '"*"'),
        ("len(code) <= 4", "len(code) <= 5"),
        ("return code[:2]", "return code[0:2].upper()"),
    ],
    "nearest_exit": [
        ("sorted(distances)", "distances"),
        ("sorted(distances)", "sorted(distances, reverse=True)"),
        (", default=None", ""),
        ("min(", "max("),
        ("default=None", 'default=""'),
        "return min(distances.values(), default=None)",
    ],
    "ticket_price": [
        ("age < 3", "age <= 3"),
        ("age < 12", "age <= 12"),
        ("age >= 65", "age > 65"),
        ("max(0, price - 2)", "price - 2"),
        ("price - 2", "price - 1"),
        ("if member", "if member and price > 5"),
        ("price = 6", "price = 5"),
    ],
    "echo_vowels": [
        ("aeiouAEIOU", "aeiou"),
        ("letter * 2 if", "letter.lower() * 2 if"),
        ("aeiouAEIOU", "aeiouyAEIOUY"),
        ("letter * 2 if", "letter + letter.lower() if"),
        ("else letter", 'else ""'),
        ("aeiouAEIOU", "aeioAEIO"),
    ],
    "index_by_initial": [
        ("word[0].lower()", "word[0]"),
        ("if word not in entries:", "if True:"),
        ("if word:", "if True:"),
        ("word not in entries", "word.lower() not in map(str.lower, entries)"),
        ("entries.append(word)", "entries.append(word.lower())"),
        ("return index", "return {key: sorted(entries) for key, entries in index.items()}"),
    ],
    "thirsty_plants": [
        ("days >= limit", "days > limit"),
        ("-days_dry[name]", "days_dry[name]"),
        ("(-days_dry[name], name)", "-days_dry[name]"),
        ("key=lambda name: (-days_dry[name], name)", "key=lambda name: (days_dry[name], name), reverse=True"),
        ("sorted(thirsty, key=lambda name: (-days_dry[name], name))", "sorted(thirsty)"),
    ],
    "mean_reading": [
        ("if reading is not None", "if reading"),
        (" if known else None", ""),
        ("else None", "else 0.0"),
        ("/ len(known)", "/ len(readings)"),
        ("sum(known) / len(known)", "sum(known) // len(known)"),
        ("sum(known) / len(known)", "round(sum(known) / len(known), 2)"),
    ],
    "launch_text": [
        ("range(seconds, 0, -1)", "range(seconds, -1, -1)"),
        ("range(seconds, 0, -1)", "range(1, seconds + 1)"),
        ('", "', '","'),
        ("range(seconds, 0, -1)", "range(seconds, 1, -1)"),
        (", word]", "] + [word] * (word != '')"),
        'return ", ".join(map(str, range(seconds, 0, -1))) + ", " + word',
    ],
    "rhymes": [
        ("first != second and ", ""),
        ("first, second = first.lower(), second.lower()", ""),
        ("return ", "return min(len(first), len(second)) > letters and "),
        ("first[-letters:] == second[-letters:]", "first[-1:] == second[-1:]"),
        ("first[-letters:] == second[-letters:]", "first[:letters] == second[:letters]"),
        ("first[-letters:] == second[-letters:]", "(first.endswith(second) or second.endswith(first))"),
    ],
    "merge_shopping": [
        ("amount > 0", "amount >= 0"),
        (" if amount > 0", ""),
        ("amount > 0", "amount != 0"),
        ("total.get(name, 0) + amount", "amount"),
        ("name, amount in shopping.items()", "name, amount in [item for item in shopping.items() if item[1] > 0]"),
        ("total[name] = total.get(name, 0) + amount", "total[name] = max(0, total.get(name, 0) + amount)"),
    ],
    "wavy_text": [
        ("capital = True", "capital = False"),
        (
            "            capital = not capital\n        else:\n            result += character",
            "        else:\n            result += character\n        capital = not capital",
        ),
        ("character.lower()", "character"),
        ("character.isalpha()", 'character != " "'),
        'return "".join(c.upper() if place % 2 == 0 else c.lower() for place, c in enumerate(line))',
        (
            "            result += character\n    return",
            "            result += character\n            capital = True\n    return",
        ),
    ],
    "battery_after": [
        (
            "min(100, max(0, level + change[event]))\n    return level",
            "level + change[event]\n    return min(100, max(0, level))",
        ),
        ("min(100, max(0, level + change[event]))", "max(0, level + change[event])"),
        ("min(100, max(0, level + change[event]))", "min(100, level + change[event])"),
        ('"idle": -1', '"idle": 0'),
        (
            "level = min(100, max(0, level + change[event]))",
            "if 0 <= level + change[event] <= 100:\n            level += change[event]",
        ),
    ],
    "came_back": [
        ("len(seen) > 1", "len(seen) > 0"),
        ("len(seen) > 1", "len(seen) > 2"),
        ("return {name for", "return {name: seen for"),
        "names = [name for day, name in visits]\nreturn {name for name in names if names.count(name) > 1}",
        """
        back = set()
        for (day, name), (other, next_name) in zip(visits, visits[1:]):
            if name == next_name and day != other:
                back.add(name)
        return back
        """,
    ],
    "between": [
        ("line.find(closing, start)", "line.find(closing)"),
        ("line.find(closing, start)", "line.rfind(closing)"),
        ("start += len(opening)", "start += 1"),
        ("return None if end < 0 else line[start:end]", "return line[start:end]"),
        ("if start < 0:\n        return None\n", "if start < 0:\n        return ''\n"),
        ("return None if end < 0 else line[start:end]", "return None if end <= start else line[start:end]"),
        """
        if opening not in line or closing not in line:
            return None
        return line.split(opening)[1].split(closing)[0]
        """,
        (
            "start += len(opening)\n    end = line.find(closing, start)",
            "end = line.find(closing, start)\n    start += len(opening)",
        ),
    ],
    "ring_walk": [
        ("size // 2", "(size + 1) // 2"),
        (" % size", ""),
        ('"L": -1', '"L": 1'),
        ("size // 2", "size / 2"),
        ("return sum(step[move] for move in moves) % size", "return abs(sum(step[move] for move in moves)) % size"),
        ("sum(step[move] for move in moves) % size", "max(0, sum(step[move] for move in moves)) % size"),
    ],
    "is_staircase": [
        ("in (1, 2)", "== 1"),
        ("in (1, 2)", "> 0"),
        ("in (1, 2)", "in (0, 1, 2)"),
        ("in (1, 2)", "<= 2"),
        ("range(1, len(heights))", "range(1, len(heights) - 1)"),
        ("range(1, len(heights))", "range(len(heights))"),
        ("return all", "return len(heights) > 1 and all"),
        ("return all", "return any"),
        ("heights[place] - heights[place - 1]", "abs(heights[place] - heights[place - 1])"),
    ],
    "cash_rounded": [
        ("(sum(prices) + 5) // 10 * 10", "round(sum(prices), -1)"),
        ("(sum(prices) + 5) // 10 * 10", "sum((price + 5) // 10 * 10 for price in prices)"),
        ("+ 5", "+ 4"),
        ("(sum(prices) + 5)", "sum(prices)"),
        ("+ 5", "+ 9"),
        ("(sum(prices) + 5) // 10 * 10", "round(sum(prices) / 10) * 10"),
    ],
    "table_line": [
        (""" or '"' in cell""", ""),
        (""".replace('"', '""')""", ""),
        ('return ","', 'return ", "'),
        ("""if "," in cell or '"' in cell""", """if "," in cell or '"' in cell or " " in cell"""),
        ("""if "," in cell or""", "if"),
        ('return ","', 'return ",".join(cell for cell in written if cell) or ","'),
        """
        import csv, io
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow(cells)
        return out.getvalue()
        """,
    ],
    # medium
    "meeting_gaps": [
        ("sorted(meetings)", "meetings"),
        ("free = max(free, finish)", "free = finish"),
        ("min(begin, end)", "begin"),
        (" and free < end", ""),
        ("free < begin and", "free <= begin and"),
        ("    if free < end:\n        gaps.append((free, end))\n", ""),
        ("if free < end:", "if free <= end:"),
        ("free = start", "free = min([start, *(begin for begin, _ in meetings)])"),
        """
        taken = {minute for a, b in meetings for minute in range(a, b)}
        return [(minute, minute + 1) for minute in range(start, end) if minute not in taken]
        """,
    ],
    "print_ranges": [
        ("sorted(set(pages))", "sorted(pages)"),
        ("sorted(set(pages))", "pages"),
        ("len(run) > 2", "len(run) > 1"),
        ("len(run) > 2", "len(run) > 3"),
        ('return ","', 'return ", "'),
        ("page - 1:", "page - 2:"),
        ("{run[0]}-{run[-1]}", "{run[0]}-{run[-2]}"),
    ],
    "fair_shares": [
        ("    if whole == 0:\n        return [0] * len(weights)\n", ""),
        ("-(cents * weights[place] % whole)", "cents * weights[place] % whole"),
        ("-(cents * weights[place] % whole)", "-weights[place]"),
        (
            "key=lambda place: -(cents * weights[place] % whole)",
            "key=lambda place: (cents * weights[place] % whole, place), reverse=True",
        ),
        ("cents * weight // whole", "int(cents * weight / whole)"),
        ("cents * weight // whole", "cents // whole * weight"),
        ("cents * weight // whole", "round(cents * weight / whole)"),
        (
            "    for place in by_loss[: cents - sum(shares)]:\n        shares[place] += 1\n",
            "    shares[0] += cents - sum(shares)\n",
        ),
        ("by_loss[: cents - sum(shares)]", "by_loss[: 1 if cents > sum(shares) else 0]"),
    ],
    "plank_ways": [
        ("            solid = 0\n", ""),
        ("(2, 3)", "(1, 2, 3)"),
        ("(2, 3)", "(2, 4)"),
        ("ways.append(ways[square])", "ways.append(1)"),
        ("ways.append(ways[square])", "ways.append(0)"),
        ("if size <= solid", "if size < solid"),
        ("in holes", "+ 1 in holes"),
        ("return ways[length]", "return ways[length] if length else 0"),
        """
        covered = [square for square in range(length) if square not in holes]
        ways = [1, 0, 1]
        for squares in range(3, len(covered) + 1):
            ways.append(ways[squares - 2] + ways[squares - 3])
        return ways[len(covered)]
        """,
    ],
    "digit_total_count": [
        (" + (same == total)", ""),
        (" + (same == total)", " + 1"),
        ("for extra in range(digit)", "for extra in range(digit + 1)"),
        ("range(10)", "range(1, 10)"),
        ("range(10)", "range(9)"),
        ("smaller[total] + (same == total)", "smaller[total] + (same == total) - (total == 0)"),
        "return sum(sum(map(int, str(number))) == total for number in range(min(limit, 20000) + 1))",
    ],
    "frog_count": [
        ("[1, 3, 1]", "[1, 3, 0]"),
        ("[1, 3, 1]", "[3, 1, 1]"),
        ("power[1][0] * 3 + power[1][1] * 2", "power[0][0] * 3 + power[0][1] * 2"),
        ("power[1][0] * 3 + power[1][1] * 2", "power[1][0] * 2 + power[1][1] * 3"),
        (
            "return (power[1][0] * 3 + power[1][1] * 2 + power[1][2]) % modulus",
            "return power[1][0] * 3 + power[1][1] * 2 + power[1][2]",
        ),
        ("1000003", "1000007"),
        ("day //= 2", "day = int(day / 2)"),
    ],
    "busiest_minute": [
        ("leaving + 1", "leaving"),
        ("present > best[1]", "present >= best[1]"),
        ("(minute, present)", "(present, minute)"),
        ("sorted(change)", "change"),
        ("best = None\n", "best = (0, 0)\n"),
        """
        times = [minute for visit in visits for minute in visit]
        return max(((t, times.count(t)) for t in sorted(times)), key=lambda pair: pair[1], default=None)
        """,
        """
        if not visits:
            return None
        minutes = range(min(a for a, _ in visits), min(max(b for _, b in visits) + 1, 10000))
        return max(((m, sum(a <= m <= b for a, b in visits)) for m in minutes), key=lambda p: (p[1], p[0]))
        """,
    ],
    "run_stack": [
        ("[lower - upper]", "[upper - lower]"),
        (
            "if len(stack) < needs.get(command, 0):\n            return None",
            "if len(stack) < needs.get(command, 0):\n            continue",
        ),
        (
            "if len(stack) < needs.get(command, 0):\n            return None",
            "if len(stack) < needs.get(command, 0):\n            return []",
        ),
        ("needs.get(command, 0)", "min(1, needs.get(command, 0))"),
        ('"swap": 2', '"swap": 1'),
        ("[upper, lower]", "[lower, upper]"),
        ("return stack", "return stack[::-1]"),
        ("return stack", "return stack or None"),
        ("stack.append(stack[-1])", "stack.append(stack[0])"),
        ("int(command.split()[1])", "int(command[-1])"),
        ('"drop": 1', '"drop": 0'),
    ],
    "text_table": [
        (".rstrip()", ""),
        ('"  ".join', '" ".join'),
        ("ljust", "rjust"),
        (
            "max(len(row[column]) for row in rows if column < len(row))",
            "max(len(cell) for row in rows for cell in row)",
        ),
        ("strict=False", "strict=True"),
        ("max((len(row) for row in rows), default=0)", "len(rows[0])"),
        ("for row in rows]", "for row in rows if row]"),
        (
            "max(len(row[column]) for row in rows if column < len(row))",
            "len(max((row[column] for row in rows if column < len(row))))",
        ),
        (").rstrip() for row", ").strip() for row"),
    ],
    "trimmed_mean": [
        ("sorted(values)", "values"),
        ("len(values) - left_out]", "]"),
        ("[left_out : len(values) - left_out]", "[left_out:-left_out]"),
        ("len(values) * percent // 100", "round(len(values) * percent / 100)"),
        ("len(values) * percent // 100", "-(-len(values) * percent // 100)"),
        ("/ len(kept)", "/ len(values)"),
        ("len(values) * percent // 100", "len(values) * percent // 200"),
        (
            "left_out = len(values) * percent // 100\n    kept = sorted(values)",
            "left_out = int(percent / 100 * len(values))\n    kept = sorted(set(values))",
        ),
    ],
    "interpolate": [
        ("sorted(points)", "points"),
        ("    if x <= ordered[0][0]:\n        return ordered[0][1]\n", ""),
        ("return ordered[-1][1]", "return 0.0"),
        ("low + (high - low)", "high + (high - low)"),
        ("(x - left) / (right - left)", "(right - x) / (right - left)"),
        ("(high - low) * (x - left) / (right - left)", "(high - low) / 2"),
        ("return low + (high - low) * (x - left) / (right - left)", "return low if x < right else high"),
        ("return ordered[-1][1]", "return high + (high - low) * (x - right) / (right - left)"),
        (
            "return low + (high - low) * (x - left) / (right - left)",
            "return round(low + (high - low) * (x - left) / (right - left), 2)",
        ),
    ],
    "follow_links": [
        ("return way, True", "return [*way, following], True"),
        ("return way, False", "return way, True"),
        ("if following in way", "if following == start"),
        ("if following in way", "if following == way[-1]"),
        ("return way, True", "return way, following == start"),
        ("return way, True", "return way[way.index(following):], True"),
        ("way = [start]", "way = [start]\n    if start not in links:\n        return [], False"),
    ],
    "flooded": [
        (
            "(y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x)",
            "(y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x), (y + 1, x + 1)",
        ),
        ("(y, x - 1), ", ""),
        ('cells[below][right] == "."', 'cells[below][right] != "~"'),
        ("0 <= below", "-1 <= below"),
        ("0 <= right", "-1 <= right"),
        ("while shore and hours:\n        hours -= 1", "while shore:"),
        ("shore = wet", "shore = wet[:1]"),
        ("shore and hours", "shore and hours > 1"),
        ("for row in cells]", "for row in cells] or None"),
        """
        cells = [list(row) for row in grid]
        for _ in range(min(hours, 100)):
            for y, row in enumerate(cells):
                for x, cell in enumerate(row):
                    around = [cells[b][a] for b, a in ((y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x))
                              if 0 <= b < len(cells) and 0 <= a < len(row)]
                    if cell == "." and "~" in around:
                        row[x] = "~"
        return ["".join(row) for row in cells]
        """,
    ],
    "dressing_order": [
        ("min(ready)", "max(ready)"),
        ("if not ready:\n            return None", "if not ready:\n            return order"),
        ("if not ready:\n            return None", "if not ready:\n            return []"),
        ("order.append(min(ready))\n        left.remove(order[-1])", "order += sorted(ready)\n        left -= ready"),
        (
            "{after for before, after in rules if before in left}",
            "{before for before, after in rules if after in left}",
        ),
        ("if before in left", "if before in left and before != after"),
        """
        order = []
        for before, after in sorted(rules):
            for name in (before, after):
                if name not in order:
                    order.append(name)
        return order
        """,
    ],
    "best_training": [
        ("day - rest)", "day - rest - 1)"),
        ("day - rest)", "day - rest + 1)"),
        ("max(0, day - rest)", "day - rest"),
        ("best[day], gain", "gain"),
        ("best = [0]", "best = [gains[0]]"),
        "return max([0, *(sum(gains[first :: rest + 1]) for first in range(rest + 1))])",
        "return sum(gain for gain in gains[:: rest + 1] if gain > 0)",
        """
        total, free = 0, set(range(len(gains)))
        for day in sorted(free, key=lambda day: (-gains[day], day)):
            if day in free and gains[day] > 0:
                total += gains[day]
                free -= set(range(day - rest, day + rest + 1))
        return total
        """,
    ],
    "balance_weights": [
        ('"0+-"', '"0-+"'),
        ('signs = "0+-"[load % 3] + signs', 'signs += "0+-"[load % 3]'),
        ('signs or "0"', "signs"),
        ("(load + 1) // 3", "load // 3"),
        ("while load:", "while load > 0:"),
        ("(load + 1) // 3", "round(load / 3)"),
        ('signs or "0"', 'signs.rstrip("0") or "0"'),
    ],
    "version_order": [
        ("return sorted(versions, key=key)", "return sorted(versions)"),
        ("        while numbers and numbers[-1] == 0:\n            numbers.pop()\n", ""),
        ("key=key", "key=lambda version: (key(version), version)"),
        ("key=key", "key=key, reverse=True"),
        ("key=key", "key=lambda version: (key(version), len(version))"),
        ("while numbers and numbers[-1] == 0:", "if numbers[-1] == 0:"),
        ("return sorted(versions, key=key)", "return sorted(dict.fromkeys(versions), key=key)"),
        ("return numbers", "return float('.'.join(map(str, (numbers + [0, 0])[:2])))"),
        ("while numbers and", "while"),
    ],
    "changed_settings": [
        ("names = [*before, *(name for name in after if name not in before)]", "names = before"),
        ("names = [*before, *(name for name in after if name not in before)]", "names = after"),
        (
            "names = [*before, *(name for name in after if name not in before)]",
            "names = [name for name in before if name in after]",
        ),
        ("{prefix}{key}.", "{key}."),
        ('values.update(flat(value, f"{prefix}{key}."))', "values[prefix + key] = value"),
        ("(before.get(name), after.get(name))", "(after.get(name), before.get(name))"),
        ("(before.get(name), after.get(name))", "[before.get(name), after.get(name)]"),
        ("before.get(name), after.get(name)", "before.get(name) or None, after.get(name) or None"),
        ("return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}", "return pairs"),
        ("prefix + key", "key"),
    ],
}

SLOW: dict[str, str] = {
    "plank_ways": """
        def cover(square):
            if square >= length:
                return int(square == length)
            if square in holes:
                return cover(square + 1)
            sizes = [size for size in (2, 3) if not set(range(square, square + size)) & set(holes)]
            return sum(cover(square + size) for size in sizes)

        return cover(0)
        """,
    "digit_total_count": "return sum(sum(map(int, str(number))) == total for number in range(limit + 1))",
    "frog_count": """
        before, now = 2, 3
        for _ in range(day):
            before, now = now, (now + 3 * before + 1) % 1000003
        return before
        """,
    "busiest_minute": """
        if not visits:
            return None
        best = (0, 0)
        for minute in range(max(leaving for _, leaving in visits) + 1):
            present = sum(a <= minute <= b for a, b in visits)
            if present > best[1]:
                best = (minute, present)
        return best
        """,
    "flooded": """
        def wet(grid, y, x):
            places = ((y, x), (y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x))
            return any(0 <= b < len(grid) and 0 <= a < len(grid[b]) and grid[b][a] == "~" for b, a in places)

        for _ in range(hours):
            grid = [
                "".join("~" if cell == "." and wet(grid, y, x) else cell for x, cell in enumerate(row))
                for y, row in enumerate(grid)
            ]
        return grid
        """,
    "best_training": """
        def best(day):
            return max(best(day + 1), gains[day] + best(day + rest + 1)) if day < len(gains) else 0

        return best(0)
        """,
}
"""Right, but not in a lifetime: each needs more than 10 ** 9 steps for one of the inputs."""


def program(problem: Problem, change: Change) -> str:
    """The whole program. The part to replace must be in the reference's body, once."""
    assert problem.solution is not None
    body = problem.solution[len(problem.prompt) :]
    if isinstance(change, str):
        return problem.prompt + textwrap.indent(textwrap.dedent(change).strip("\n"), "    ") + "\n"
    old, new = change
    assert body.count(old) == 1, f"{problem.id}: {old!r} is {body.count(old)} times in the body"
    return problem.prompt + body.replace(old, new)


def wrong_programs(problem: Problem) -> list[str]:
    assert isinstance(problem.tests, Calls)
    return [program(problem, change) for change in CHANGES[problem.tests.entry_point]]
