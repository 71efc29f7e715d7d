"""The intents that `ra3kit.study.lists` composes programs of, and the idioms that carry them out.

An intent is one expression of a kind. Each kind has five idioms, templates of 2 to 6 lines in which `EXPR` stands for
the expression; all five do the same to the list `xs` and the number `t`.
"""

from __future__ import annotations

from dataclasses import dataclass

IDIOMS: dict[str, tuple[str, ...]] = {
    # EXPR: whether the item x stays
    "filter": (
        "ys = [x for x in xs if EXPR]\nxs = ys\n",
        "ys = []\nfor x in xs:\n    if EXPR:\n        ys.append(x)\nxs = ys\n",
        "keep = lambda x: EXPR\nxs = list(filter(keep, xs))\n",
        "ys = []\nfor x in xs:\n    ys += [x] * (EXPR)\nxs = ys\n",
        "ys = []\nfor x in xs:\n    if not (EXPR):\n        continue\n    ys.append(x)\nxs = ys\n",
    ),
    # EXPR: what becomes of the item x
    "map": (
        "ys = [EXPR for x in xs]\nxs = ys\n",
        "ys = []\nfor x in xs:\n    ys.append(EXPR)\nxs = ys\n",
        "move = lambda x: EXPR\nxs = list(map(move, xs))\n",
        "ys = xs[:]\nfor i, x in enumerate(ys):\n    ys[i] = EXPR\nxs = ys\n",
        "ys, i = xs[:], 0\nfor x in xs:\n    ys[i] = EXPR\n    i += 1\nxs = ys\n",
    ),
    # EXPR: what the item x adds to t
    "fold": (
        "u = sum(EXPR for x in xs)\nt += u\n",
        "u = 0\nfor x in xs:\n    u += EXPR\nt += u\n",
        "ys = [EXPR for x in xs]\nt += sum(ys)\n",
        "for x in xs:\n    t += EXPR\n",
        "part = lambda x: EXPR\nt += sum(map(part, xs))\n",
    ),
    # EXPR: what stands in place of the item x, u being what stands before it (0 at first)
    "scan": (
        "ys, u = [], 0\nfor x in xs:\n    u = EXPR\n    ys.append(u)\nxs = ys\n",
        "ys = [0]\nfor x in xs:\n    u = ys[-1]\n    ys.append(EXPR)\nxs = ys[1:]\n",
        "u = 0\nxs = [u := EXPR for x in xs]\n",
        "ys, u = xs[:], 0\nfor i, x in enumerate(xs):\n    u = EXPR\n    ys[i] = u\nxs = ys\n",
        "ys = [0]\nstep = lambda u, x: EXPR\nfor x in xs:\n    ys.append(step(ys[-1], x))\nxs = ys[1:]\n",
    ),
    # EXPR: what stands in place of two neighbours a and b
    "pair": (
        "ys = [EXPR for a, b in zip(xs, xs[1:])]\nxs = ys\n",
        "ys = []\nfor a, b in zip(xs, xs[1:]):\n    ys.append(EXPR)\nxs = ys\n",
        "join = lambda a, b: EXPR\nxs = list(map(join, xs, xs[1:]))\n",
        "ys = []\nfor i in range(1, len(xs)):\n    a, b = xs[i - 1], xs[i]\n    ys.append(EXPR)\nxs = ys\n",
        "ys, a = [], 0\nfor b in xs:\n    ys.append(EXPR)\n    a = b\nxs = ys[1:]\n",
    ),
    # EXPR: what becomes of the whole list ys
    "whole": (
        "ys = list(xs)\nxs = EXPR\n",
        "turn = lambda ys: EXPR\nxs = turn(xs)\n",
        "ys, xs = xs, []\nfor y in EXPR:\n    xs.append(y)\n",
        "ys = xs\nys = EXPR\nxs = ys\n",
        "ys = xs[:]\nif ys:\n    xs = EXPR\n",
    ),
}


@dataclass(frozen=True)
class Intent:
    """One thing that lines of a program are there for.

    Args:
        name: what a comment calls it.
        kind: of `IDIOMS`.
        right: the expression.
        bug: a wrong one.
    """

    name: str
    kind: str
    right: str
    bug: str

    def lines(self, idiom: int, bug: bool = False) -> str:
        """The lines in one of the kind's idioms, not indented."""
        return IDIOMS[self.kind][idiom].replace("EXPR", self.bug if bug else self.right)


POOL: tuple[Intent, ...] = (
    Intent("keep evens", "filter", "x % 2 == 0", "x % 2 == 1"),
    Intent("keep positives", "filter", "x > 0", "x >= 0"),
    Intent("drop zeros", "filter", "x != 0", "x != 1"),
    Intent("keep small", "filter", "x < 5", "x <= 5"),
    Intent("keep large", "filter", "x > 3", "x >= 3"),
    Intent("drop threes", "filter", "x % 3 != 0", "x % 3 != 1"),
    Intent("keep near", "filter", "abs(x) < 4", "abs(x) < 3"),
    Intent("double each", "map", "2 * x", "2 * x + 1"),
    Intent("square each", "map", "x * x", "x * abs(x)"),
    Intent("negate each", "map", "-x", "1 - x"),
    Intent("add three", "map", "x + 3", "x + 2"),
    Intent("halve each", "map", "x // 2", "x % 2"),
    Intent("cap high", "map", "min(x, 6)", "min(x, 5)"),
    Intent("raise low", "map", "max(x, 0)", "max(x, 1)"),
    Intent("size only", "map", "abs(x)", "abs(x - 1)"),
    Intent("wrap seven", "map", "x % 7", "x // 7"),
    Intent("count items", "fold", "1", "x != 0"),
    Intent("add total", "fold", "x", "x + 1"),
    Intent("add squares", "fold", "x * x", "x + x"),
    Intent("count big", "fold", "x > 4", "x >= 4"),
    Intent("count odds", "fold", "x % 2", "x // 2"),
    Intent("add sizes", "fold", "abs(x)", "abs(x + 1)"),
    Intent("take total", "fold", "-x", "1 - x"),
    Intent("running sum", "scan", "u + x", "u - x"),
    Intent("running peak", "scan", "max(u, x)", "min(u, x)"),
    Intent("running swing", "scan", "x - u", "x + 1"),
    Intent("take gaps", "pair", "b - a", "a - b"),
    Intent("pair sums", "pair", "a + b", "a + a"),
    Intent("pair peaks", "pair", "max(a, b)", "min(a, b)"),
    Intent("turn round", "whole", "ys[::-1]", "ys[1::-1]"),
    Intent("sort up", "whole", "sorted(ys)", "sorted(ys)[::-1]"),
    Intent("drop first", "whole", "ys[1:]", "ys[:-1]"),
    Intent("every other", "whole", "ys[::2]", "ys[1::2]"),
    Intent("shift left", "whole", "ys[1:] + ys[:1]", "ys[:1] + ys[1:]"),
    Intent("say twice", "whole", "ys + ys", "ys + ys[::-1]"),
    Intent("sort unique", "whole", "sorted(set(ys))", "sorted(set(ys[1:]))"),
)

ADJECTIVES = ("amber", "brisk", "calm", "dusty", "eager", "faint", "grand", "hollow", "icy", "jolly", "keen", "lunar")
NOUNS = (
    "anchor",
    "basin",
    "comet",
    "dune",
    "ember",
    "falcon",
    "glade",
    "harbor",
    "inlet",
    "jasper",
    "kettle",
    "lantern",
)
"""What a glossary's phrases are made of: intents share words, so that only both together say which is meant."""
