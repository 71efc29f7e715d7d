"""A working directory with a user's own module (`toys`) and recipe (`toy.yaml`) in it, as outside the repository."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOY_RECIPE = """\
# a toy that trains in milliseconds
vars:
  seed: 3
model:
  class_path: toys.ToyModel
  lr: 0.05
  head:
    class_path: toys.Costly
    cost: 0.5
data:
  class_path: toys.ToyData
  seed: ${vars.seed}
trainer:
  max_epochs: 2
  accelerator: cpu
  devices: 1
  enable_model_summary: false
  log_every_n_steps: 1
  callbacks:
    - class_path: toys.Recorder
      file: losses.txt
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; what it adds to the import path and to sys.modules is taken back afterwards."""
    shutil.copy(Path(__file__).with_name("toys.py"), tmp_path)
    (tmp_path / "toy.yaml").write_text(TOY_RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "toys", raising=False)
    yield tmp_path
    sys.modules.pop("toys", None)
