"""Odd but right programs: a sandbox that fails them is too tight."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from ra3kit.verify.problem import Asserts, Calls, Limits, Problem, Streams, Tests

LIMITS = Limits(time=5.0, memory=512, output=4 << 20, threads=16)


def _one(name: str, tests: Tests, program: str) -> tuple[str, Problem]:
    return textwrap.dedent(program), Problem(f"honest/{name}", tests, limits=LIMITS)


def _calls(
    name: str, inputs: Sequence[Sequence[Any]], expected: Sequence[Any], program: str, **more: Any
) -> tuple[str, Problem]:
    return _one(name, Calls(more.pop("entry_point", "f"), inputs, expected, **more), program)


def programs() -> list[tuple[str, Problem]]:
    """Programs with the problems they solve."""
    return [*_returning(), *_printing(), *_asserted()]


def _returning() -> list[tuple[str, Problem]]:
    import collections
    import datetime
    import decimal
    import fractions

    return [
        _calls(
            "recursion in a thread with a big stack",
            [[50_000]],
            [50_000],
            """
            import sys, threading
            sys.setrecursionlimit(10**6)
            threading.stack_size(128 << 20)
            def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
            def f(n):
                found = []
                thread = threading.Thread(target=lambda: found.append(depth(n)))
                thread.start()
                thread.join()
                return found[0]
            """,
        ),
        _calls(
            "deep recursion in the main thread",
            [[20_000]],
            [20_000],
            """
            import sys
            sys.setrecursionlimit(10**6)
            def f(n): return 0 if n == 0 else 1 + f(n - 1)
            """,
        ),
        _calls(
            "a pool of threads",
            [[[1, 2, 3]]],
            [[1, 4, 9]],
            """
            from concurrent.futures import ThreadPoolExecutor
            def f(numbers):
                with ThreadPoolExecutor(4) as pool:
                    return list(pool.map(lambda n: n * n, numbers))
            """,
        ),
        _calls(
            "numpy inside",
            [[[[2.0, 0.0], [0.0, 4.0]]]],
            [[[0.5, 0.0], [0.0, 0.25]]],
            """
            import numpy as np
            def f(matrix): return np.linalg.inv(np.array(matrix)).tolist()
            """,
        ),
        _calls(
            "numpy outside",
            [[4]],
            [6],
            """
            import numpy as np
            def f(n): return np.arange(n).sum()
            """,
        ),
        _calls(
            "exact numbers",
            [["0.1"], ["0.25"]],
            [(fractions.Fraction(1, 10), decimal.Decimal("0.3")), (fractions.Fraction(1, 4), decimal.Decimal("0.75"))],
            """
            from decimal import Decimal
            from fractions import Fraction
            def f(text): return Fraction(text), Decimal(text) * 3
            """,
        ),
        _calls(
            "counters and queues",
            [["abca"]],
            [[collections.Counter("abca"), collections.deque("abca"), {"a": [0, 3], "b": [1], "c": [2]}]],
            """
            from collections import Counter, defaultdict, deque
            def f(text):
                places = defaultdict(list)
                for place, letter in enumerate(text):
                    places[letter].append(place)
                return [Counter(text), deque(text), places]
            """,
        ),
        _calls(
            "records as tuples",
            [[3]],
            [[(3, 4), (5, 6)]],
            """
            import typing
            from dataclasses import astuple, dataclass
            from typing import NamedTuple
            class Point(NamedTuple):
                x: int
                y: int
            @dataclass(order=True)
            class Other:
                x: int
                y: int
            def f(n: int) -> typing.List[tuple]: return [Point(n, n + 1), astuple(Other(n + 2, n + 3))]
            """,
        ),
        _calls(
            "an enumeration of integers and a subclass of str",
            [[2]],
            [[2, "two"]],
            """
            import enum
            class Number(enum.IntEnum):
                TWO = 2
            class Name(str): pass
            def f(n): return [Number(n), Name("two")]
            """,
        ),
        _calls(
            "something found or not",
            [["a1"], ["b"]],
            [True, False],
            """
            import re
            def f(text): return re.search("[0-9]", text)
            """,
            oracle="not_none",
        ),
        _calls(
            "a generator, consumed",
            [[5]],
            [[0, 1, 1, 2, 3]],
            """
            import itertools
            def fibonacci():
                a, b = 0, 1
                while True:
                    yield a
                    a, b = b, a + b
            def f(n): return list(itertools.islice(fibonacci(), n))
            """,
        ),
        _calls(
            "a huge integer",
            [[60_000]],
            [7**60_000],
            """
            def f(n): return 7**n
            """,
        ),
        _calls(
            "its argument changed in place",
            [[[3, 1, 2]], [[]]],
            [[1, 2, 3], []],
            """
            def f(numbers):
                numbers.sort()
                return numbers
            """,
        ),
        _calls(
            "noise on standard output and error",
            [[1], [2]],
            [1, 2],
            """
            import os, sys, warnings
            print("loading", flush=True)
            def f(n):
                print("debug", n, file=sys.stderr)
                sys.stdout.write("x" * 100_000)
                os.write(2, b"y" * 300_000)
                warnings.warn("a warning")
                return n
            """,
        ),
        _calls(
            "a method",
            [[2, 3]],
            [5],
            """
            from typing import *
            class Solution:
                def add(self, a: int, b: int) -> Optional[int]:
                    return self.sum([a, b])
                def sum(self, numbers: List[int]) -> int:
                    return sum(numbers)
            """,
            entry_point="Solution().add",
            exact=False,
        ),
        _calls(
            "dates",
            [["2024-02-28"]],
            [[datetime.date(2024, 2, 29), "Thursday", datetime.timedelta(days=1)]],
            """
            import calendar, datetime
            def f(text):
                day = datetime.datetime.strptime(text, "%Y-%m-%d").date()
                after = day + datetime.timedelta(days=1)
                return [after, calendar.day_name[after.weekday()], after - day]
            """,
        ),
        _calls(
            "a cached recursion and chance that doesn't matter",
            [[80]],
            [23416728348467685],
            """
            import random, time
            from functools import cache, lru_cache
            random.seed()
            @lru_cache(maxsize=None)
            def f(n): return n if n < 2 else f(n - 1) + f(n - 2) + 0 * random.randint(1, int(time.time()))
            """,
        ),
        _calls(
            "text with every kind of character",
            [["e\u0301"]],
            ["\u00e9\U0001f600\u0000\u00df"],
            """
            import unicodedata
            def f(text): return unicodedata.normalize("NFC", text) + "\\U0001f600\\0\\u00df"
            """,
        ),
        _calls(
            "the module it is run as, and its own doctests",
            [[3]],
            [[9, 0, "square"]],
            """
            from __future__ import annotations
            import copy, dataclasses, doctest, inspect, pickle, typing
            @dataclasses.dataclass
            class Pair:
                a: int
                b: typing.Optional[Pair] = None
            def square(n):
                \'\'\'
                >>> square(2)
                4
                \'\'\'
                return n * n
            def f(n):
                pair = pickle.loads(pickle.dumps(copy.deepcopy(Pair(n * n, Pair(1)))))
                typing.get_type_hints(Pair)
                return [pair.a, doctest.testmod().failed, inspect.stack()[0].function and square.__name__]
            """,
        ),
        _calls(
            "twelve threads with stacks of the default size",
            [[12]],
            [66],
            """
            import threading
            def f(n):
                found, barrier = [], threading.Barrier(n)
                def work(k):
                    barrier.wait()
                    found.append(k)
                threads = [threading.Thread(target=work, args=(k,)) for k in range(n)]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
                return sum(found)
            """,
        ),
        _calls(
            "hashes and encodings",
            [["x"]],
            ["eA== 9dd4e461268c8034f5c8564e155c67a6 [1, 2]"],
            """
            import base64, hashlib, json, pickle, zlib
            def f(text):
                again = pickle.loads(zlib.decompress(zlib.compress(pickle.dumps(text)))).encode()
                return f"{base64.b64encode(again).decode()} {hashlib.md5(again).hexdigest()} {json.dumps([1, 2])}"
            """,
        ),
        _calls(
            "a signal handler of its own",
            [[1]],
            [2],
            """
            import signal, time
            def f(n):
                caught = []
                signal.signal(signal.SIGALRM, lambda *args: caught.append(1))
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                time.sleep(0.05)
                return n + len(caught)
            """,
        ),
    ]


def _printing() -> list[tuple[str, Problem]]:
    def prints(name: str, program: str, given: str = "3\n1 2 3\n", expected: str = "6\n") -> tuple[str, Problem]:
        return _one(name, Streams([given], [expected]), program)

    return [
        prints(
            "input() and a main function",
            """
            def main():
                n = int(input())
                print(sum(map(int, input().split())))
                exit()
            if __name__ == "__main__":
                main()
            """,
        ),
        prints(
            "all of standard input at once, as bytes",
            """
            import sys
            n, *numbers = map(int, sys.stdin.buffer.read().split())
            sys.stdout.write(str(sum(numbers)))
            sys.exit(0)
            """,
        ),
        prints(
            "standard input as a file",
            """
            lines = open(0).read().splitlines()
            print(*[sum(map(int, lines[1].split()))], sep="", end="\\n\\n")
            """,
        ),
        prints(
            "the fast readers and writers of contests",
            """
            import io, os, sys
            input = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline
            n = int(input())
            os.write(1, b"%d\\n" % sum(map(int, input().split())))
            os._exit(0)
            """,
        ),
        prints(
            "a thread with a big stack does all the work",
            """
            import sys, threading
            def main():
                input()
                print(sum(map(int, sys.stdin.readline().split())))
            sys.setrecursionlimit(10**7)
            threading.stack_size(1 << 27)
            thread = threading.Thread(target=main)
            thread.start()
            """,
        ),
        prints(
            "standard output replaced, an exception caught at the end of the input",
            """
            import io, sys
            sys.stdout = io.StringIO()
            total = 0
            try:
                input()
                while True:
                    total += sum(map(int, input().split()))
            except EOFError:
                print(total)
            sys.__stdout__.flush()
            sys.stdout, text = open(1, "w", closefd=False), sys.stdout.getvalue()
            print(text)
            """,
        ),
        prints(
            "characters outside ASCII", "print(input()[::-1])\n", "na\u00efve \U0001f600\n", "\U0001f600 ev\u00efan\n"
        ),
        prints("nothing to print", "import sys\nsys.stdin.read()\n", "3\n", ""),
        prints("numbers spelled differently", "print(0.50, 3.0, 1e3, sep=' ')\n", "", "0.5 3 1000\n"),
    ]


def _asserted() -> list[tuple[str, Problem]]:
    return [
        _one(
            "a check that calls, indexes and catches",
            Asserts(
                "def check(candidate):\n"
                "    assert candidate([1, 2])[0] == 1 and len(candidate([1, 2])) == 2\n"
                "    try:\n"
                "        candidate(None)\n"
                "    except TypeError:\n"
                "        return\n"
                "    assert False\n",
                "f",
            ),
            """
            def f(numbers): return sorted(numbers)
            """,
        ),
        _one(
            "assertions about a class of the program",
            Asserts("box = Box(2)\nbox.add(3)\nassert box.total() == 5\nassert [n for n in box] == [2, 3]\n"),
            """
            class Box:
                def __init__(self, first): self.numbers = [first]
                def add(self, number): self.numbers.append(number)
                def total(self): return sum(self.numbers)
                def __iter__(self): return iter(self.numbers)
            """,
        ),
    ]
