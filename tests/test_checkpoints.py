"""The checkpoint format: whole or passed over, read back exactly, never run."""

from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ra3kit import checkpoints
from ra3kit.errors import RunError


def tied() -> torch.nn.Module:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 4), "b": torch.nn.Linear(4, 2)})
    model["c"] = model["b"]
    return model.to(torch.bfloat16)


def save(run: Path, step: int, model: torch.nn.Module | None = None, **content: Any) -> Path:
    values = (model or tied()).state_dict(keep_vars=True)
    tensors = {checkpoints.MODEL + name: value for name, value in values.items() if not name.startswith("c.")}
    same = {f"c.{leaf}": f"b.{leaf}" for leaf in ("weight", "bias")}
    path = checkpoints.place(run, step)
    checkpoints.write(path, tensors, content, {"step": step, "same": same})
    return path


def test_weights_come_back_by_name_with_the_shared_ones_under_each(tmp_path: Path) -> None:
    model = tied()
    path = save(tmp_path, 7, model)
    everything = checkpoints.weights(tmp_path)
    assert everything.keys() == model.state_dict().keys()
    assert all(torch.equal(everything[name], value) for name, value in model.state_dict().items())
    assert everything["c.weight"] is everything["b.weight"]
    other = tied()
    other["c"].load_state_dict(checkpoints.weights(path, "c."))  # type: ignore[index]
    assert torch.equal(other["b"].weight, model["b"].weight)  # type: ignore[index]
    with pytest.raises(RunError, match=r"no weights begin with 'q\.'.*They begin with: a, b"):
        checkpoints.weights(path, "q.")


def test_the_state_comes_back_equal(tmp_path: Path) -> None:
    given = {
        "rng": (np.random.get_state(), random.getstate(), torch.get_rng_state()),
        "numbers": [1, 2.5, True, None, float("inf"), np.float64(3), np.int64(4)],
        "arrays": {"a": np.arange(6).reshape(2, 3), "b": np.array([True])},
        "text": "größe",
    }
    back = checkpoints.state(save(tmp_path, 1, **given))
    assert pickle.dumps(back["numbers"]) == pickle.dumps(given["numbers"])
    np.random.set_state(back["rng"][0])
    random.setstate(back["rng"][1])
    torch.set_rng_state(back["rng"][2])
    assert np.array_equal(back["arrays"]["a"], given["arrays"]["a"])  # type: ignore[call-overload, index]
    assert back["text"] == "größe"


def test_only_whole_ones_are_found_and_the_others_are_named(tmp_path: Path) -> None:
    old, new, torn, cut = (save(tmp_path, step) for step in (9, 10_000, 10_001, 10_002))
    (torn / "about.json").unlink()
    weights = next((cut / "weights").glob("*.distcp"))
    weights.write_bytes(weights.read_bytes()[:-1])
    half = checkpoints.place(tmp_path, 10_003).with_suffix(".part")
    half.mkdir()
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    assert checkpoints.find(tmp_path) == [old, new]
    assert checkpoints.resolve(tmp_path) == new
    assert checkpoints.resolve(old) == old
    why = checkpoints.passed_over(tmp_path)
    assert list(why) == [torn, cut, half]
    assert "no readable about.json" in why[torn]
    assert "bytes" in why[cut]
    assert "not written to its end" in why[half]
    for broken in (cut, half):
        with pytest.raises(RunError, match="Others of the run: step-00000009, step-00010000"):
            checkpoints.resolve(broken)


def test_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    (path / "state.pt").unlink()
    assert checkpoints.find(tmp_path) == []
    assert save(tmp_path, 7) == path
    assert checkpoints.find(tmp_path) == [path]


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run or checkpoint folder"):
        checkpoints.resolve(tmp_path / "runs")
    with pytest.raises(RunError, match="no whole checkpoint is there"):
        checkpoints.resolve(tmp_path)
    path = save(tmp_path, 3)
    content = json.loads((path / "about.json").read_text())
    (path / "about.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(RunError, match="checkpoint format 99; this version of ra3kit reads 1"):
        checkpoints.about(path)


class Harmful:
    def __reduce__(self) -> Any:
        return os.mkdir, ("owned",)


@pytest.mark.parametrize("file", ["state.pt", "weights/.metadata"])
def test_a_foreign_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    path = save(tmp_path, 3)
    if file == "state.pt":
        torch.save({"a": Harmful()}, path / file)
    else:
        (path / file).write_bytes(pickle.dumps(Harmful()))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="cannot be read"):
        checkpoints.state(path) if file == "state.pt" else checkpoints.metadata(path)
    assert not (tmp_path / "owned").exists()


def test_other_names_and_shapes_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    with pytest.raises(RunError, match=r"lacks 1 of the run's tensors, 'model\.d\.weight' say"):
        checkpoints.read_into(path, {"model.d.weight": torch.zeros(2)})
    with pytest.raises(RunError, match=r"'model\.a\.weight' has shape \(4, 3\), here \(3, 4\)"):
        checkpoints.read_into(path, {"model.a.weight": torch.zeros(3, 4, dtype=torch.bfloat16)})


@pytest.mark.parametrize("file", ["state.pt", "about.json", "tensors"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    first = save(tmp_path, 1)
    full = OSError(28, "No space left on device")
    if file == "tensors":
        monkeypatch.setattr(
            "torch.distributed.checkpoint.filesystem._write_item", lambda *_: (_ for _ in ()).throw(full)
        )
    else:
        write = checkpoints._write_synced

        def fails(path: Path, data: Any) -> None:
            if path.name == file:
                raise full
            write(path, data)

        monkeypatch.setattr(checkpoints, "_write_synced", fails)
    with pytest.raises(
        RunError, match=r"step-00000002 could not be written: .*No space left on device.*are as they were"
    ):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert checkpoints.find(tmp_path) == [first]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [first.name]
    assert checkpoints.weights(tmp_path)
