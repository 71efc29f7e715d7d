"""Does the sandbox hold here? Solutions that must pass, hostile programs that must not, canaries outside."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ra3kit.verify import zoo
from ra3kit.verify.canaries import Canaries
from ra3kit.verify.isolation import Isolation
from ra3kit.verify.problem import Calls, Problem, Verdict
from ra3kit.verify.verifier import Verifier, run_async

GRACE_SECONDS = 20.0
"""Over its wall clock an attack may take this long until its verdict is there: a busy machine, a referee, a new
server."""

_THREAD = "can't start new thread"

_SANDBOX_UIDS = range(2_000_000_000, 2_100_000_000)


@dataclass
class Report:
    """What the self-test found.

    Args:
        label: the isolation in force. walls: what the server said of each wall.
        solutions: how many reference solutions and honest programs were judged; rejected: those that didn't pass.
        attacks: category -> how many; lost: attack -> how it won.
        limits: what this machine's walls can't do, by the program that shows it; documented, not a fault.
        left_behind: processes, files, shared memory.
        seconds: wall clock of it all.
    """

    label: str = ""
    walls: dict[str, Any] = field(default_factory=dict)
    solutions: int = 0
    rejected: dict[str, str] = field(default_factory=dict)
    attacks: dict[str, int] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    left_behind: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return not (self.rejected or self.lost or self.left_behind)


def selftest(
    solutions: Sequence[tuple[str, Problem]],
    isolation: Isolation = "auto",
    namespaces: bool = True,
    workers: int | None = None,
    only: str | None = None,
    on_done: Callable[[], None] | None = None,
) -> Report:
    """Judge the solutions, the zoo's honest programs and all its attacks.

    Args:
        solutions: programs that must pass.
        only: part of an attack's name or category; None: all.
        on_done: called after each program.

    Raises:
        NoSandbox: no isolation holds here; nothing was run.
    """
    return run_async(_selftest(solutions, isolation, namespaces, workers, only, on_done or (lambda: None)))


def programs(only: str | None = None) -> int:
    """How many programs `selftest` runs besides the solutions it is given."""
    return len(zoo.honest()) + attacks_by_category(only).total()


def attacks_by_category(only: str | None = None) -> Counter[str]:
    """How many attacks are chosen, by category."""
    dummy = zoo.Canary("/s", "s", "/w", "E", 1, "a", 1, "earlier-secret-of-some-length", "m")
    return Counter(attack.category for attack in zoo.attacks(dummy) if _chosen(attack, only))


def _chosen(attack: zoo.Attack, only: str | None) -> bool:
    return only is None or only in attack.name or only in attack.category


async def _selftest(
    solutions: Sequence[tuple[str, Problem]],
    isolation: Isolation,
    namespaces: bool,
    workers: int | None,
    only: str | None,
    on_done: Callable[[], None],
) -> Report:
    report = Report()
    started = time.monotonic()
    with Canaries() as canaries:
        async with Verifier(workers, isolation, namespaces, cache=False) as verifier:
            report.label, report.walls = verifier.label, dict(verifier.walls)
            good = [*solutions, *zoo.honest()]
            verdicts = await verifier.verify_batch(good, on_done=lambda index, verdict: on_done())
            report.solutions = len(good)
            for (_, problem), verdict in zip(good, verdicts, strict=True):
                if verdict.status != "pass" and report.walls["threads"] == "denied" and _THREAD in verdict.reason:
                    report.limits[problem.id] = "threads can't be counted here, so programs may start none"
                elif verdict.status != "pass":
                    report.rejected[problem.id] = f"{verdict.status}: {verdict.reason}"
            await _remember(verifier, canaries.canary)
            attacks = [attack for attack in zoo.attacks(canaries.canary) if _chosen(attack, only)]
            waiting = iter(attacks)

            async def work() -> None:
                for attack in waiting:
                    report.attacks[attack.category] = report.attacks.get(attack.category, 0) + 1
                    begun = time.monotonic()
                    verdict = await verifier.verify(attack.program, attack.problem)
                    how = won(attack, verdict, time.monotonic() - begun, canaries)
                    if how and attack.needs == "namespaces" and report.walls["namespaces"] != "yes":
                        report.limits[f"{attack.category}/{attack.name}"] = f"without namespaces: {attack.why}"
                    elif how:
                        report.lost[f"{attack.category}/{attack.name}"] = how
                    on_done()

            await asyncio.gather(*(work() for _ in range(verifier.workers)))
        report.left_behind = canaries.left_behind(_is_a_programs)
    report.seconds = time.monotonic() - started
    return report


async def _remember(verifier: Verifier, canary: zoo.Canary) -> None:
    """Let every server have run a program that held the earlier secret."""
    problem = Problem("earlier", Calls("f", [[]], [len(canary.earlier_secret)]))
    program = f"secret = {canary.earlier_secret!r}\ndef f(): return len(secret)\n"
    await asyncio.gather(*(verifier.verify(program, problem) for _ in range(4 * verifier.workers)))


def won(attack: zoo.Attack, verdict: Verdict, elapsed: float, canaries: Canaries) -> str:
    """How an attack won, "" if it didn't."""
    if verdict.status in ("pass", "internal"):
        return f"verdict {verdict.status}: {verdict.reason}"
    if found := canaries.touched():
        return "; ".join(found)
    said = f"{verdict.reason} {dict(verdict.failure)}"
    expected = repr(getattr(attack.problem.tests, "expected", ""))
    for secret in (canaries.canary.secret, canaries.canary.earlier_secret):
        # a verdict shows what was expected; the secret must not be there otherwise
        if secret in said.replace(str(verdict.failure.get("expected", "")), "") and secret not in expected:
            return "a secret is in its answer"
    limits = attack.problem.limits
    if elapsed > 3 * limits.time + 2 + GRACE_SECONDS:
        return f"took {elapsed:.0f} s, its wall clock is {3 * limits.time + 2:.0f} s"
    runs = len(getattr(attack.problem.tests, "inputs", [0]))
    if verdict.seconds > (limits.time + 1) * max(1, runs):
        return f"used {verdict.seconds:.1f} CPU seconds of {limits.time:g}"
    return ""


def _is_a_programs(path: str, found: os.stat_result) -> bool:
    """Whether a new file is one of the zoo's: by its owner where programs have one of their own, or by its name."""
    return found.st_uid in _SANDBOX_UIDS or "zoo" in os.path.basename(path)
