"""What the machine does to a run: full disks, places that cannot be written to, closed pipes, interrupts, no memory."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from ra3kit.cli import VERBS, in_words, main
from ra3kit.data.store import BootstrappedStore, StoreWriter
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError, RA3Error

FIT = ["fit", "--recipe", "ntp.yaml", "run.dir=out"]


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """`ra3kit ls` ends with this error."""
    import ra3kit.cli.ls as ls

    def run(_: Any) -> int:
        raise error

    monkeypatch.setattr(ls, "run", run)


class OutOfMemoryError(RuntimeError):
    """What torch.cuda raises, by name."""


ERRORS: dict[str, tuple[BaseException, list[str]]] = {
    "full": (OSError(errno.ENOSPC, "No space left on device", "a/b"), ["a/b: No space left", "is whole", "run.dir"]),
    "over quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), ["Disk quota exceeded", "quota"]),
    "too large": (OSError(errno.EFBIG, "File too large", "c"), ["c: File too large", "ulimit -f"]),
    "forbidden": (PermissionError(errno.EACCES, "Permission denied", "d"), ["d: Permission denied", "another place"]),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "e"), ["e: Read-only", "run.dir"]),
    "too many files": (OSError(errno.EMFILE, "Too many open files"), ["Too many open files", "ulimit -n"]),
    "unknown": (OSError("something odd\nwith details"), ["something odd.", "--debug"]),
    "no memory": (MemoryError(), ["out of memory", "data.tokens_per_forward"]),
    "no GPU memory": (OutOfMemoryError("CUDA out of memory. Tried"), ["CUDA out of memory", "data.tokens_per_forward"]),
    "no CPU memory": (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ["out of memory"]),
    "the kit's own": (DataError("x: no such thing."), ["error: x: no such thing."]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_the_machine_are_said_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, words = ERRORS[name]
    raising(monkeypatch, error)
    assert main(["ls"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert all(word in said for word in words), said
    with pytest.raises(type(error)):
        main(["ls", "--debug"])


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyError("x"))
    with pytest.raises(KeyError):
        main(["ls"])
    assert in_words(ValueError("x")) is None


def test_an_interrupt_ends_in_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert main(["ls"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_debug_before_and_after_it(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in ([verb, "--no-such-option", "--debug"], ["--debug", verb, "--no-such-option"]):
        with pytest.raises(RA3Error, match=r"--no-such-option|required"):
            main(arguments)


PLACES: dict[str, tuple[str, list[str]]] = {
    "a folder with something in it": ("code", ["run.dir=code", "not empty", "Nothing is overwritten"]),
    "a file": ("ntp.yaml", ["run.dir=ntp.yaml", "a file"]),
    "below a file": ("ntp.yaml/x", ["ntp.yaml/x: Not a directory"]),
    "a link to nowhere": ("link", ["run.dir=link", "/nowhere"]),
    "a place of the kernel": ("/proc/x", ["/proc/x: "]),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_no_run_can_have(refused, desk: Path, name: str) -> None:
    place, words = PLACES[name]
    (desk / "link").symlink_to("/nowhere")
    message = refused("fit", "--recipe", "ntp.yaml", f"run.dir={place}")
    assert all(word in message for word in words), message


def test_a_file_where_runs_should_go(refused, desk: Path) -> None:
    (desk / "runs").write_text("mine")
    assert "runs/ntp/001: Not a directory" in refused("fit", "--recipe", "ntp.yaml")
    assert (desk / "runs").read_text() == "mine"


def test_no_room_for_the_recipe_leaves_no_folder(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: Any, **__: Any) -> int:
        path.touch()  # the file is there before its content
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert "out/recipe.yaml: No space left on device" in refused(*FIT)


@pytest.fixture
def small_files() -> Any:
    """No file may grow beyond 20 KiB, as when a disk is nearly full: the tiny model's weights no longer fit."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("checkpoints", [True, False], ids=["a checkpoint", "the trained model"])
def test_no_room_for_weights_names_the_run_and_loses_nothing(
    desk: Path, capsys: pytest.CaptureFixture[str], small_files: None, checkpoints: bool
) -> None:
    settings = ["trainer.callbacks.0.warmup_steps=0", f"trainer.enable_checkpointing={checkpoints}".lower()]
    assert main(["fit", "--recipe", "ra3.yaml", "run.dir=out", *settings]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error", "Traceback"))]
    assert len(errors) == 1
    assert "out" in errors[0]
    assert "too large" in errors[0].lower() or "could not be written" in errors[0]
    assert (desk / "out" / "recipe.yaml").is_file()
    assert not [path for path in (desk / "out" / "checkpoints").glob("*") if path.suffix != ".part"]
    if not checkpoints:
        assert len(BootstrappedStore.open(desk / "out" / "store" / "iteration-0"))  # finished before, and whole
        assert not (desk / "out" / "model").exists()  # whole or not there


def test_a_store_that_could_not_be_written_goes_on_after_its_last_whole_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Trajectory.from_lines(f"f#{i}", [[5, 6], [7]], [True, True], 0, 1) for i in range(5)]
    writer = StoreWriter(tmp_path / "s", {"seed": 1}, shard_size=2)
    writer.add(rows[0])
    writer.add(rows[1])
    writer.add(rows[2])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises((OSError, RA3Error), match="No space left"):
            writer.add(rows[3])
    again = StoreWriter(tmp_path / "s", {"seed": 1}, shard_size=2)
    assert again.next_index == 2
    for row in rows[2:]:
        again.add(row)
    again.finish()
    assert [row.snippet_id for row in BootstrappedStore.open(tmp_path / "s")] == [row.snippet_id for row in rows]


def shell(desk: Path, command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KIT": f"{sys.executable} -m ra3kit.cli", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", command], cwd=desk, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("$KIT show tiny-ra3 > /dev/full", 2),
        ("$KIT ls >&-", 0),
        ("$KIT verify <&-", 0),
    ],
)
def test_streams_that_are_full_or_closed(desk: Path, command: str, code: int) -> None:
    done = shell(desk, command)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code == 2:
        assert done.stderr.startswith("error: No space left on device.")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ntp.yaml", "ra3.yaml"])
def test_a_run_whose_reader_goes_away_prints_no_traceback(desk: Path, recipe: str) -> None:
    done = shell(desk, f"$KIT fit --recipe {recipe} | head -n 1; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 1
    assert done.stdout.startswith("recipe ")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_oom_is_known_by_its_name_without_importing_torch() -> None:
    torch = types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
    assert "out of memory" in str(in_words(torch.OutOfMemoryError("CUDA out of memory.")))
