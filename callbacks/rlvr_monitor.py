"""RLVRMonitor: what the answers of RLVR look like while it runs, in TensorBoard and as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback

from ra3kit.callbacks.latent_monitor import indent, log_text
from ra3kit.ranges import check_number
from ra3kit.ranks import gather
from ra3kit.rlvr.tasks import Answer

Row = dict[str, Any]
"""One answer as JSON, see `row_of`."""


class RLVRMonitor(Callback):
    """Shows some answers with their verdicts as text (`rlvr/samples`), and writes all of a step to a file.

    At the first training step and at every one that `every` divides, `samples/step-000010.jsonl` in the run folder gets
    a line for each answer of all processes, see `row_of`. Steps are counted from 1, over the whole run. Needs a module
    that keeps the answers of its last step as `last_answers` (`GRPOModule`); any other is left alone.

    Args:
        every: training steps between two looks, >= 1.
        show: answers shown, >= 0: one that passes and one that fails where there are both, then others.
        keep: files kept, the newest ones, >= 1; null for all.
    """

    def __init__(self, every: int = 10, show: int = 2, keep: int | None = None):
        check_number("RLVRMonitor: every", every, least=1, whole=True)
        check_number("RLVRMonitor: show", show, least=0, whole=True)
        check_number("RLVRMonitor: keep", keep, least=1, whole=True, optional=True)
        self.every, self.show, self.keep = every, show, keep

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        groups = getattr(pl_module, "last_answers", None)
        if groups is None:
            return
        step = batch.number + 1
        if step > 1 and step % self.every:
            return
        tokenizer: Any = pl_module.tokenizer
        own = [row_of(step, answer, tokenizer.decode(answer.task.prompt)) for group in groups for answer in group]
        rows = [row for rank in gather(own) for row in rank]
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir) / "samples"
            write_rows(folder / f"step-{step:06d}.jsonl", rows)
            if self.keep is not None:
                for path in sorted(folder.glob("step-*.jsonl"))[: -self.keep]:
                    path.unlink()
            if self.show:
                log_text(trainer, "rlvr/samples", as_markdown(chosen(rows, self.show)))


def row_of(step: int, answer: Answer, prompt: str) -> Row:
    """One answer as JSON.

    - `step`: of training, from 1. `task_id`, `sample`: the problem, and the number of the answer in its group.
    - `prompt`: what the policy was given, as text. `text`: the answer, cut before its stop string. `program`: what was
      judged. `tokens`: how many were sampled. `finish`: "end", "stop" or "length".
    - `log_q`: mean log-probability of a token when it was sampled, nats.
    - `verdict`, `reason`, `passed`, `total`: see `Verdict`; `verdict` is null where there is none. `seconds`: CPU
      seconds of the judged program.
    - `reward`: null where the answer was not judged.
    - `advantage`: null where the answer is not trained on, else `[[token, value], ...]`, the values from these tokens
      on. One pair where all tokens have the same.
    """
    verdict, completion = answer.verdict, answer.completion
    return {
        "step": step,
        "task_id": answer.task.problem.id,
        "sample": answer.number,
        "prompt": prompt,
        "text": completion.text,
        "program": answer.program,
        "tokens": len(completion.ids),
        "finish": completion.finish,
        "log_q": float(np.mean(completion.log_q)) if completion.log_q else 0.0,
        "verdict": verdict and verdict.status,
        "reason": verdict.reason if verdict else "",
        "passed": verdict.passed if verdict else 0,
        "total": verdict.total if verdict else 0,
        "seconds": verdict.seconds if verdict else 0.0,
        "reward": answer.reward,
        "advantage": None if answer.advantage is None else changes(answer.advantage),
    }


def changes(values: Float[np.ndarray, " tokens"]) -> list[list[float]]:
    """Where a sequence takes which value.

    >>> changes(np.array([0.5, 0.5, -0.25]))
    [[0, 0.5], [2, -0.25]]
    """
    at = [i for i in range(len(values)) if i == 0 or values[i] != values[i - 1]]
    return [[i, float(values[i])] for i in at]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a line of JSON for each row, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(path)


def chosen(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many rows: the first that passes, the first that was judged and does not, then the others in order."""
    passing = [row for row in rows if row["verdict"] == "pass"][:1]
    failing = [row for row in rows if row["verdict"] != "pass" and row["reward"] is not None][:1]
    first = [*passing, *failing]
    return [*first, *(row for row in rows if row not in first)][:most]


def as_markdown(rows: Sequence[Row]) -> str:
    """Answers as TensorBoard shows text: indented blocks are code."""
    return "\n\n---\n\n".join(_shown(row) for row in rows)


def _shown(row: Row) -> str:
    reward = "none" if row["reward"] is None else f"{row['reward']:.4g}"
    values = [value for _, value in row["advantage"] or ()]
    if not values:
        advantage = "not trained on"
    elif len(values) == 1:
        advantage = f"advantage {values[0]:+.4g}"
    else:
        advantage = f"advantage {min(values):+.4g} to {max(values):+.4g}"
    reason = f" ({row['reason']})" if row["reason"] else ""
    head = (
        f"**{row['task_id']}**, answer {row['sample']}: {row['verdict'] or 'not judged'}{reason}, reward {reward}, "
        f"{advantage}, {row['tokens']} tokens, finish {row['finish']}"
    )
    return f"{head}\n\nPrompt:\n\n{indent(row['prompt'])}\n\nAnswer:\n\n{indent(row['text'])}"
