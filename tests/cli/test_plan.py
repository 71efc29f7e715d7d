"""`ra3kit fit --dry-run`: builds, sets up the data, prints the plan, trains and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ra3kit.cli import main
from ra3kit.cli.plan import in_words, table

DRY = ["fit", "--recipe", "toy.yaml", "--dry-run"]


def rows(text: str) -> dict[str, str]:
    """Key -> value of every line that has two columns."""
    pairs = (line.strip().split("  ", 1) for line in text.splitlines() if "  " in line.strip())
    return {key: value.strip() for key, value in pairs}


def test_the_plan_counts_and_trains_nothing(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(desk.rglob("*"))
    assert main(DRY) == 0
    out = capsys.readouterr().out
    plan = rows(out)
    assert plan["run folder"] == "runs/toy/001 (not created)"
    assert plan["devices"] == "1 x cpu (here 1 x cpu)"
    assert (plan["body"], plan["total"]) == ("5", "about 180 B")
    assert (plan["weights"], plan["gradients"], plan["Adam moments"]) == ("20 B", "20 B", "40 B")
    assert plan["together"] == "80 B"
    assert (plan["train_code_tokens"], plan["too long"]) == ("1,048,576", "1")
    assert plan["checkpoints (2 kept and one being written)"] == "180 B"  # 3 times 5 fp32 numbers and their moments
    assert "stores" not in out
    assert [path for path in sorted(desk.rglob("*")) if "__pycache__" not in str(path)] == before


def test_stores_are_counted_by_the_iterations_of_a_callback(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DRY, "trainer.callbacks={class_path: toys.Switch, iterations: 3}"]) == 0
    assert rows(capsys.readouterr().out)["stores (3)"] == "24.0 MiB"  # 3 x 8 bytes x 2^20 tokens


def test_a_model_describes_itself(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DRY, "model={class_path: toys.NoKeywords}"]) == 0
    plan = rows(capsys.readouterr().out)
    assert (plan["toy"], plan["weights"]) == ("5", "3.0 MiB")
    assert plan["stores (2)"] == "16.0 MiB"  # 2 x 8 bytes x 2^20 tokens
    assert plan["total"] == "about 16.0 MiB"


@pytest.mark.parametrize(
    ("component", "kept"),
    [
        ("lightning.pytorch.callbacks.ModelCheckpoint, save_top_k: 2, save_last: true, monitor: loss", "3 kept"),
        ("lightning.pytorch.callbacks.ModelCheckpoint, save_top_k: -1", "2 kept, counting one an epoch"),
        ("lightning.pytorch.callbacks.ModelCheckpoint, save_top_k: 0", "0 kept"),
        ("ra3kit.callbacks.checkpoints.Checkpoints, keep: 4", "4 kept and one being written"),
        ("ra3kit.callbacks.checkpoints.Checkpoints, keep: null", "2 kept, counting one an epoch"),
    ],
)
def test_kept_checkpoints_follow_the_callback(
    desk: Path, capsys: pytest.CaptureFixture[str], component: str, kept: str
) -> None:
    assert main([*DRY, f"trainer.callbacks=[{{class_path: {component}}}]"]) == 0
    assert f"checkpoints ({kept})" in capsys.readouterr().out


def test_no_checkpoints_no_disk(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DRY, "trainer.enable_checkpointing=false"]) == 0
    assert rows(capsys.readouterr().out)["checkpoints (0 kept)"] == "0 B"


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_a_recipe_for_gpus_is_planned_without_one(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = ["trainer.accelerator=gpu", "trainer.devices=4", "trainer.precision=16-mixed", "trainer.strategy=fsdp"]
    assert main([*DRY, *gpu]) == 0
    plan = rows(capsys.readouterr().out)
    assert plan["devices"] == "4 x gpu (no GPU here: planned on the CPU)"
    assert plan["precision"] == "16-mixed"
    assert main([*DRY, *gpu, "trainer.precision=16-mixd"]) == 2
    assert "Did you mean '16-mixed'?" in capsys.readouterr().err
    assert main(["fit", "--recipe", "toy.yaml", *gpu]) == 2
    assert "error: trainer: " in capsys.readouterr().err


def test_data_that_cannot_be_read_is_an_error_of_the_plan(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DRY, "data.path=missing"]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_tables() -> None:
    nested = {"a": 1, "memory": {"x": 2048, "y": "unknown"}, "empty": {}, "rate": 0.123456, "n_bytes": 10, "yes": True}
    assert table(nested) == (
        "a        1\nmemory\n  x  2.0 KiB\n  y  unknown\nrate     0.1235\nn_bytes  10 B\nyes      True"
    )
    assert [in_words(size) for size in (0, 1023, 1024, 2**30, 2**41)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.0 GiB",
        "2.0 TiB",
    ]
