"""Whether the solutions that come with problems pass: a failure is a wrong test, or a test that was read wrongly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from ra3kit.progress import track
from ra3kit.verify.problem import Problem, Status, Verdict
from ra3kit.verify.verifier import verify_all

SHOWN = 20
FEW = 20
"""Solutions run without showing progress."""


@dataclass(frozen=True)
class Gold:
    """What became of the solutions.

    Args:
        problems: how many were looked at.
        passed: solutions that pass every test.
        failed: problem id -> the verdict, of those that do not.
        without: problems that have no solution.
    """

    problems: int = 0
    passed: int = 0
    failed: dict[str, Verdict] = field(default_factory=dict)
    without: int = 0

    def statuses(self) -> dict[Status, int]:
        """Verdict -> how many solutions had it, passes left out."""
        return dict(Counter(verdict.status for verdict in self.failed.values()).most_common())

    def lines(self) -> list[str]:
        """The counts, and the first failures by name."""
        judged = self.passed + len(self.failed)
        said = f"{self.passed} of {judged} pass their tests" if judged else "none"
        lines = [f"  gold solutions: {said}; {self.without} of {self.problems} problems have none"]
        lines += [f"  {count:6d}  {status}" for status, count in self.statuses().items()]
        shown = list(self.failed.items())[:SHOWN]
        lines += [
            f"          {name}: {verdict.status}, {' '.join(verdict.reason.split())[:140]}" for name, verdict in shown
        ]
        if len(self.failed) > SHOWN:
            lines.append(f"          and {len(self.failed) - SHOWN} more")
        return lines


def verify_gold(problems: Sequence[Problem], workers: int | None = None) -> Gold:
    """Run the solutions of problems on their tests, in the sandbox.

    Args:
        problems: any; those without a solution are counted.
        workers: programs at a time; None: the processors there are.

    Raises:
        NoSandbox: no isolation holds here; nothing was run.
    """
    pairs = [(problem.solution, problem) for problem in problems if problem.solution is not None]
    with track(len(pairs), "gold solutions") if len(pairs) > FEW else nullcontext(lambda: None) as advance:
        verdicts = verify_all(pairs, workers=workers, on_done=lambda *_: advance())
    judged = list(zip(pairs, verdicts, strict=True))
    failed = {problem.id: verdict for (_, problem), verdict in judged if verdict.status != "pass"}
    return Gold(len(problems), len(pairs) - len(failed), failed, len(problems) - len(pairs))
