"""RLVRMonitor on a stand-in module: what it writes, shows and leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from ra3kit import provenance
from ra3kit.callbacks.rlvr_monitor import RLVRMonitor, as_markdown, changes, chosen, row_of
from ra3kit.errors import RecipeError
from ra3kit.rlvr.tasks import Answer, Task
from ra3kit.rollout.jobs import Completion
from ra3kit.testing.models import tiny_tokenizer
from ra3kit.verify.problem import Calls, Problem, Status, Verdict

TOKENIZER = tiny_tokenizer()
FIELDS = {
    *("step", "task_id", "sample", "prompt", "text", "program", "tokens", "finish", "log_q"),
    *("verdict", "reason", "passed", "total", "seconds", "reward", "advantage"),
}


def answer(number: int, status: Status | None, text: str = "    return x\n", of: str = "one") -> Answer:
    task = Task.of(Problem(of, Calls("f", [[1]], [1]), "def f(x):\n"), TOKENIZER)
    ids = list(TOKENIZER(text)["input_ids"])
    completion = Completion(ids, text, [-0.5] * len(ids), [-1.0] * len(ids), "stop")
    verdict = status and Verdict(status, "" if status == "pass" else "wrong", int(status == "pass"), 1)
    judged = status not in (None, "internal")
    reward = float(status == "pass") if judged else None
    advantage = np.full(len(ids), 0.5, np.float32) if judged else None
    return Answer(task, number, completion, task.program(text), verdict or None, reward, advantage)


class StandIn(L.LightningModule):
    """Keeps answers as GRPOModule does: those of its last step, by step number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.tokenizer = TOKENIZER

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.last_answers = [
            [answer(0, "fail", f"    return {batch.number}\n"), answer(1, "pass", "    return 'é\ud7ff'\n")],
            [answer(0, "internal", of="two")],
        ]
        return self.weight * 1.0

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(folder: Path, module: L.LightningModule, *callbacks: RLVRMonitor, steps: int = 7, first: int = 0) -> None:
    batches = DataLoader(
        [SimpleNamespace(number=first + n) for n in range(steps)],  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=lambda batch: batch,
    )
    L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=folder,
        logger=TensorBoardLogger(str(folder), name="", version=""),
        callbacks=list(callbacks),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, batches)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "samples").iterdir())


def test_all_answers_of_the_steps_asked_for_are_written_and_two_shown(tmp_path: Path) -> None:
    run(tmp_path, StandIn(), RLVRMonitor(every=3))
    assert files(tmp_path) == ["step-000001.jsonl", "step-000003.jsonl", "step-000006.jsonl"]
    rows = lines(tmp_path / "samples" / "step-000003.jsonl")
    assert [(row["task_id"], row["sample"], row["verdict"]) for row in rows] == [
        ("one", 0, "fail"),
        ("one", 1, "pass"),
        ("two", 0, "internal"),
    ]
    assert all(set(row) == FIELDS for row in rows)
    first = rows[0]
    assert (first["step"], first["text"], first["program"]) == (3, "    return 2\n", "def f(x):\n    return 2\n")
    assert first["prompt"].endswith("def f(x):\n")
    assert (first["reason"], first["passed"], first["total"], first["finish"]) == ("wrong", 0, 1, "stop")
    assert (first["reward"], first["advantage"], first["log_q"]) == (0.0, [[0, 0.5]], -0.5)
    assert rows[1]["text"] == "    return 'é\ud7ff'\n"
    assert (rows[2]["reward"], rows[2]["advantage"]) == (None, None)
    events = EventAccumulator(str(tmp_path)).Reload()
    shown = events.Tensors("rlvr/samples/text_summary")
    assert [event.step for event in shown] == [1, 3, 6]
    text = shown[1].tensor_proto.string_val[0].decode()
    assert text.index("**one**, answer 1: pass, reward 1") < text.index("**one**, answer 0: fail (wrong), reward 0")
    assert "\n    <|endoftext|>def f(x):\n" in text
    assert "        return 2" in text
    assert "two" not in text
    assert "samples/step-000003.jsonl" in provenance.artefacts(tmp_path)


def test_steps_are_counted_over_the_run_and_the_newest_files_kept(tmp_path: Path) -> None:
    run(tmp_path, StandIn(), RLVRMonitor(every=2, show=0, keep=2), steps=5)
    run(tmp_path, StandIn(), RLVRMonitor(every=2, show=0, keep=2), steps=2, first=5)  # goes on
    assert files(tmp_path) == ["step-000004.jsonl", "step-000006.jsonl"]
    assert "rlvr/samples/text_summary" not in EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"]


def test_the_answers_of_all_processes_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ra3kit.callbacks.rlvr_monitor.gather", lambda rows: [rows, rows[:1]])
    run(tmp_path, StandIn(), RLVRMonitor(), steps=1)
    assert [row["task_id"] for row in lines(tmp_path / "samples" / "step-000001.jsonl")] == ["one", "one", "two", "one"]


def test_a_file_that_cannot_be_finished_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, StandIn(), RLVRMonitor(), steps=1)
    path = tmp_path / "samples" / "step-000001.jsonl"
    before = path.read_text()

    def full(self: Path, text: str, **_: Any) -> None:
        with self.open("w") as file:
            file.write(text[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        run(tmp_path, StandIn(), RLVRMonitor(), steps=1)
    assert path.read_text() == before


def test_a_module_without_answers_is_left_alone(tmp_path: Path) -> None:
    class Other(StandIn):
        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return self.weight * 1.0

    run(tmp_path, Other(), RLVRMonitor(every=1), steps=2)
    assert not (tmp_path / "samples").exists()


def test_what_is_shown_is_one_of_each_kind_first() -> None:
    made = [answer(0, "internal"), answer(1, "fail"), answer(2, "crash"), answer(3, "pass"), answer(4, "pass")]
    rows = [row_of(1, one, "") for one in made]
    assert [row["sample"] for row in chosen(rows, 4)] == [3, 1, 0, 2]
    assert [row["sample"] for row in chosen(rows, 1)] == [3]
    assert [row["sample"] for row in chosen(rows[:3], 2)] == [1, 0]
    assert chosen([], 2) == []


def test_advantages_that_change_are_told_where_they_do() -> None:
    made = answer(0, None)
    made.advantage = np.array([0.5, 0.5, -0.25, -0.25, 1.0], np.float32)
    row = row_of(1, made, "")
    assert row["advantage"] == [[0, 0.5], [2, -0.25], [4, 1.0]]
    assert row["verdict"] is None
    assert "not judged, reward none, advantage -0.25 to +1," in as_markdown([row])
    assert "not trained on" in as_markdown([row_of(1, answer(0, "internal"), "")])
    assert changes(np.zeros(0, np.float32)) == []


@pytest.mark.parametrize("settings", [{"every": 0}, {"show": -1}, {"keep": 0}, {"every": 2.5}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"RLVRMonitor: .* must be a whole number"):
        RLVRMonitor(**settings)
