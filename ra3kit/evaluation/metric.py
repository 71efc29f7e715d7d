"""pass@k as a torchmetrics metric: right across updates and processes, with its interval."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ra3kit.errors import DataError
from ra3kit.evaluation.passk import RESAMPLES, interval_of_mean, pass_at_k


class PassAtK(Metric):
    """pass@k with a 95 % interval over problems, the same figures as `passk.estimate` gives for the same samples.

    A problem's samples may come in several updates and on several processes: they are merged by problem before anything
    is computed. Whatever is given twice counts twice, so a sampler that pads the last batch with repeated problems
    (`DistributedSampler` without `drop_last`) has to be kept from it.

    Args:
        ks: each >= 1.
        resamples: bootstrap resamples, >= 39. seed: of the resampling.

    >>> metric = PassAtK(ks=(2,))
    >>> metric.update("HumanEval/0", judged=2, passed=1)
    >>> metric.update("HumanEval/1", judged=1, passed=1)
    >>> {key: round(float(value), 3) for key, value in metric.compute().items()}
    {'pass@2': 1.0, 'pass@2_lo': 0.025, 'pass@2_hi': 1.0, 'pass@2_left_out': 1.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, ks: Sequence[int] = (1,), resamples: int = RESAMPLES, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not ks or min(ks) < 1:
            raise DataError(f"ks={tuple(ks)}: name at least one k, each >= 1.")
        self.ks, self.resamples, self.seed = tuple(ks), resamples, seed
        self.add_state("rows", [], dist_reduce_fx="cat")  # int64 [m, 3]: problem, judged, passed

    def update(self, problem: str | int, judged: int, passed: int) -> None:
        """Add samples of one problem.

        Args:
            problem: its id, or its index. Use one of the two throughout.
            judged: samples with a verdict about the program, >= 0; `internal` and `refused` are none.
            passed: how many of these passed, 0 to `judged`.

        Raises:
            DataError: `passed` outside 0..`judged`.
        """
        if not 0 <= passed <= judged:
            raise DataError(f"{problem}: {passed} of {judged} samples passed; passed has to lie between 0 and judged.")
        key = problem_key(problem) if isinstance(problem, str) else int(problem)
        self.rows.append(torch.tensor([[key, judged, passed]], dtype=torch.int64, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """pass@k, pass@k_lo, pass@k_hi for each k (0 to 1, NaN where no problem has k judged samples) and
        pass@k_left_out, the number of problems with fewer than k; all float64."""
        rows = dim_zero_cat(self.rows).cpu().numpy() if len(self.rows) else np.zeros((0, 3), np.int64)
        problems, where = np.unique(rows[:, 0], return_inverse=True)
        counts = np.zeros((len(problems), 2), np.int64)
        np.add.at(counts, where, rows[:, 1:])
        results: dict[str, float] = {}
        for k in self.ks:
            values = np.array([pass_at_k(int(n), int(c), k) for n, c in counts if n >= k])
            value, lo, hi = interval_of_mean(values, self.seed, self.resamples)
            key = f"pass@{k}"
            results |= {key: value, f"{key}_lo": lo, f"{key}_hi": hi, f"{key}_left_out": len(counts) - len(values)}
        return {key: torch.tensor(v, dtype=torch.float64, device=self.device) for key, v in results.items()}

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather from all processes; one without a problem takes part with an empty table.

        torchmetrics would send a float vector for it, which does not fit the others' int64 tables.
        """
        if not len(self.rows):
            self.rows = [torch.zeros((0, 3), dtype=torch.int64, device=self.device)]
        super().sync(*args, **kwargs)


def problem_key(task: str) -> int:
    """A problem's id as 63 bits, the same in every process (`hash` is not)."""
    return int.from_bytes(hashlib.blake2b(task.encode(), digest_size=8).digest()) >> 1
