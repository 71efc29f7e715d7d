"""Is the difference between evaluations real? Paired over problems, with intervals and p-values.

Several runs: each is compared with the first. With --against: the runs before it are training seeds of one arm, those
after it of the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ra3kit.errors import RA3Error

if TYPE_CHECKING:
    from ra3kit.evaluation.compare import Comparison, Difference

EXAMPLES = """examples:
  ra3kit compare runs/eval/ntp runs/eval/ra3                 # ra3 minus ntp
  ra3kit compare runs/eval/ntp runs/eval/ra3 runs/eval/brite # each minus the first
  ra3kit compare ra3-0 ra3-1 ra3-2 --against ntp-0 ntp-1 ntp-2
  ra3kit compare ntp ra3 --problems --json ra3-ntp.json
"""

VALUE_WIDTH = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs, the other arm, and what to show and keep."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of an evaluation, or its results.json")
    parser.add_argument("--against", metavar="RUN", nargs="+", help="seeds of the other arm; RUNs are seeds of one arm")
    parser.add_argument("--problems", action="store_true", help="list the problems won and lost")
    parser.add_argument("--json", metavar="FILE", help="also write everything to FILE, which must not exist")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the resampling (default 0)")
    parser.add_argument(
        "--resamples", type=int, default=10_000, metavar="N", help="bootstrap resamples, at least 39 (default 10000)"
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print, and write where asked to.

    Raises:
        RA3Error: fewer than two runs, FILE exists, or runs that cannot be read or compared.
    """
    from ra3kit.evaluation.compare import compare, read_evaluations

    if args.against is None and len(args.runs) < 2:
        raise RA3Error(f"Only one run, {args.runs[0]}: name two or more, or the other arm with --against.")
    if args.seed < 0:
        raise RA3Error(f"--seed {args.seed}: has to be 0 or more.")
    file = None if args.json is None else Path(args.json).expanduser()
    if file is not None:
        _check_new(file)
    found = read_evaluations([*args.runs, *(args.against or [])])
    if args.against is None:
        first, *others = found
        arms, against = [[other] for other in others], [first]
    else:
        arms, against = [found[: len(args.runs)]], found[len(args.runs) :]
    comparisons = compare(arms, against, args.seed, args.resamples)
    for comparison in comparisons:
        print("\n".join(describe(comparison, several=len(comparisons) > 1, problems=args.problems)), end="\n\n")
    if file is not None:
        _write(file, comparisons, args.seed, args.resamples)
    print("\n".join(_where_next(comparisons, file, args.problems)))
    return 0


def describe(comparison: Comparison, several: bool = False, problems: bool = False) -> list[str]:
    """One comparison for the terminal: table, what a reader must know, and the answer as its last line.

    Args:
        comparison: what was found.
        several: there are others, so p-values adjusted by Holm's method get a column.
        problems: list the problems won and lost.
    """
    from ra3kit.evaluation.compare import seeds_note, verdict

    ours, theirs = ", ".join(comparison.ours), ", ".join(comparison.theirs)
    lines = [
        f"{comparison.benchmark}: {ours} minus {theirs}, {comparison.tasks} problems",
        *_table(comparison, several),
    ]
    if test := comparison.mcnemar:
        lines.append(
            f"First samples alone: {test.only_ours} problems pass in {ours} only, {test.only_theirs} in {theirs} only; "
            f"McNemar's exact p = {test.p:.2g}."
        )
    else:
        lines.append("pass@1 by seed: " + ", ".join(f"{run} {100 * v:.1f}" for run, v in comparison.by_run.items()))
    lines.append(f"Pass rate higher on {len(comparison.won)} problems, lower on {len(comparison.lost)}.")
    if problems:
        for title, changes in (("won", comparison.won), ("lost", comparison.lost)):
            width = max((len(change.task) for change in changes), default=0)
            lines.append(f"{title} ({len(changes)}):")
            lines += [f"  {c.task:<{width}}  {c.theirs:.2f} -> {c.ours:.2f}" for c in changes]
    lines += _warnings(comparison)
    lines += filter(None, [seeds_note(comparison)])
    return [*lines, verdict(comparison)]


def _table(comparison: Comparison, several: bool) -> list[str]:
    heads = [_head(comparison.ours), _head(comparison.theirs)]
    rows = [["", *heads, "difference", "95 % interval", "p", *(["p, Holm"] if several else []), "real at 5 %"]]
    for prefix, scores in (("", comparison.scores), ("base ", comparison.base_scores)):
        rows += [[prefix + key, *_cells(score, several)] for key, score in scores.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    first, *rest = widths
    return [
        f"{row[0]:<{first}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(row[1:], rest, strict=True)) for row in rows
    ]


def _head(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _cells(score: Difference, several: bool) -> list[str]:
    from ra3kit.evaluation.compare import points

    interval = f"[{points(score.lo)}, {points(score.hi)}]"
    shares = [f"{100 * score.ours:.1f}", f"{100 * score.theirs:.1f}"]
    ps = [f"{score.p:.4f}", *([f"{score.p_holm:.4f}"] if several else [])]
    return [*shares, points(score.value), interval, *ps, "yes" if score.real else "-"]


def _warnings(comparison: Comparison) -> list[str]:
    lines = []
    if comparison.settings:
        differing = "; ".join(
            f"{key}: {' / '.join(map(_value, values))}" for key, values in comparison.settings.items()
        )
        lines.append(f"warning: the settings differ, so the difference is theirs as well: {differing}")
    if comparison.not_shared:
        others = ", ".join(f"{count} of {name}" for name, count in comparison.not_shared.items())
        lines.append(f"warning: compared on the {comparison.tasks} problems that all have; left out: {others}")
    for prefix, scores in (("", comparison.scores), ("base ", comparison.base_scores)):
        lines += [
            f"warning: problems left out of {prefix}{key} for want of judged samples: {len(score.left_out)} "
            f"({_first(score.left_out)})"
            for key, score in scores.items()
            if score.left_out
        ]
    lines += [f"warning: {key}: no problem has enough judged samples in all runs" for key in comparison.unmeasured]
    if comparison.unjudged:
        lines.append(f"warning: samples not judged (internal or refused), which count nowhere: {comparison.unjudged}")
    return lines


def _value(value: Any) -> str:
    text = "not stated" if value is None else repr(value)
    return text if len(text) <= VALUE_WIDTH else text[: VALUE_WIDTH - 3] + "..."


def _first(names: Sequence[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _check_new(file: Path) -> None:
    if file.exists():
        raise RA3Error(f"--json {file} exists and was left as it is. Choose another name.")
    if not file.parent.is_dir():
        raise RA3Error(f"--json {file}: there is no folder {file.parent}. Create it first.")


def _write(file: Path, comparisons: Sequence[Comparison], seed: int, resamples: int) -> None:
    import json
    from dataclasses import asdict

    from ra3kit.evaluation.compare import seeds_note, verdict

    entries = [
        asdict(c) | {"real": c.scores["pass@1"].real, "verdict": verdict(c), "seeds": seeds_note(c)}
        for c in comparisons
    ]
    results = {"level": 0.95, "resamples": resamples, "seed": seed, "comparisons": entries}
    file.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _where_next(comparisons: Sequence[Comparison], file: Path | None, problems: bool) -> list[str]:
    lines = [f"Everything is in {file}."] if file is not None else []
    if any(len(c.ours) == 1 or len(c.theirs) == 1 for c in comparisons):
        lines.append("Next, with more training seeds: ra3kit compare A1 A2 A3 --against B1 B2 B3")
    elif not problems:
        lines.append("Next: the same with --problems lists the problems won and lost.")
    return lines
