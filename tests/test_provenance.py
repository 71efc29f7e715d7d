"""What made every artefact: complete, honest about kills and changes, and silent about secrets."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from small_world import corpus, data, fit, policy, ra3

from ra3kit import provenance
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.callbacks.provenance import Provenance
from ra3kit.callbacks.report import RunReport
from ra3kit.cli import main
from ra3kit.environment import commit
from ra3kit.errors import RunError

START = {"command": "ra3kit fit", "recipe": {}, "environment": {"ra3kit": {"version": "1"}}, "here": {}}
START |= {"devices": "1 x cpu", "strategy": "S", "precision": "32-true"}


def files(folder: Path) -> dict[str, str]:
    """Every file of a folder and its SHA-256, by an independent reading."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- the record -----------------------------------------------------------------------------------------------------


def test_a_folder_is_one_artefact_whose_digest_depends_on_every_byte_and_name(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"1")
    (folder / "sub" / "b").write_bytes(b"2")
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"1", b"2"))
    expected = hashlib.sha256(f"a\0{one}\nsub/b\0{two}\n".encode()).hexdigest()
    assert provenance.digest(folder) == expected
    (folder / "sub" / "b").rename(folder / "sub" / "c")
    assert provenance.digest(folder) != expected
    (folder / "sub" / "c").rename(folder / "sub" / "b")
    assert provenance.digest(folder) == expected
    (folder / "a").write_bytes(b"3")
    assert provenance.digest(folder) != expected
    assert provenance.digest(folder / "a") == hashlib.sha256(b"3").hexdigest()


def test_what_is_still_being_written_is_no_artefact(tmp_path: Path) -> None:
    for name in ("store/iteration-0", "store/iteration-1", "checkpoints/step-1", "checkpoints/step-2.part", "eval/b/s"):
        (tmp_path / name).mkdir(parents=True)
    for name in (
        "results.json",
        "results.tmp",
        "provenance.json",
        "store/iteration-1/manifest.json",
        "checkpoints/x.ckpt",
    ):
        (tmp_path / name).write_text("{}")
    whole = ["checkpoints/step-1", "checkpoints/x.ckpt", "results.json", "store/iteration-1"]
    assert provenance.artefacts(tmp_path) == whole
    (tmp_path / "eval/b/s/results.json").write_text("{}")
    assert provenance.artefacts(tmp_path) == sorted([*whole, "eval/b/s"])


def test_artefacts_are_recorded_when_they_appear_change_and_go(tmp_path: Path) -> None:
    provenance.begin(tmp_path, START)
    (tmp_path / "results.json").write_text("[1]")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "a.ckpt").write_text("weights")
    assert provenance.update(tmp_path, {"step": 3, "phase": "e"}) == ["checkpoints/a.ckpt", "results.json"]
    assert provenance.update(tmp_path, {"step": 4}, changed=True) == []
    first = provenance.read(tmp_path)["artefacts"]
    assert first["results.json"]["sha256"] == hashlib.sha256(b"[1]").hexdigest()
    assert (first["results.json"]["step"], first["results.json"]["phase"]) == (3, "e")
    assert (first["results.json"]["kind"], first["results.json"]["made_by"]) == ("results", "RunReport")

    provenance.begin(tmp_path, START)
    (tmp_path / "results.json").write_text("[2]")
    (tmp_path / "checkpoints" / "a.ckpt").unlink()
    assert provenance.update(tmp_path, {"step": 9}) == []  # a file written anew is looked for when asked
    assert provenance.update(tmp_path, {"step": 9}, changed=True) == ["results.json"]
    second = provenance.read(tmp_path)["artefacts"]
    assert second["results.json"]["sha256"] == hashlib.sha256(b"[2]").hexdigest()
    assert (second["results.json"]["step"], second["results.json"]["start"]) == (9, 1)
    assert second["checkpoints/a.ckpt"]["removed"]
    assert second["checkpoints/a.ckpt"]["sha256"] == first["checkpoints/a.ckpt"]["sha256"]  # what it was stays known
    (tmp_path / "checkpoints" / "a.ckpt").write_text("other")
    assert provenance.update(tmp_path, {"step": 12}) == ["checkpoints/a.ckpt"]
    assert "removed" not in provenance.read(tmp_path)["artefacts"]["checkpoints/a.ckpt"]


def test_a_large_artefact_is_kept_by_its_size_and_says_so(tmp_path: Path) -> None:
    provenance.begin(tmp_path, START)
    (tmp_path / "big").write_bytes(b"x" * 101)
    provenance.update(tmp_path, {"step": 0}, hash_up_to=100)
    entry = provenance.read(tmp_path)["artefacts"]["big"]
    assert (entry["bytes"], entry["sha256"], entry["why"]) == (101, None, "more than 100 bytes")
    assert provenance.verify(tmp_path) == []
    (tmp_path / "big").write_bytes(b"x" * 102)
    assert provenance.verify(tmp_path) == ["big: 102 bytes, recorded were 101"]


def test_verify_names_what_is_missing_changed_and_unknown(tmp_path: Path) -> None:
    provenance.begin(tmp_path, START)
    for name in ("kept", "changed", "missing", "events.out.tfevents.1"):
        (tmp_path / name).write_text("same")
    provenance.update(tmp_path, {"step": 1})
    assert provenance.verify(tmp_path) == []
    (tmp_path / "changed").write_text("emas")
    (tmp_path / "missing").unlink()
    (tmp_path / "new").write_text("")
    (tmp_path / "events.out.tfevents.1").write_text("a log grows")
    assert provenance.verify(tmp_path) == [
        "changed: its content has changed",
        "missing: missing",
        "new: not in the record",
    ]


def test_what_a_verb_made_elsewhere_is_recorded_with_its_run(tmp_path: Path) -> None:
    run, export = tmp_path / "run", tmp_path / "exported"
    run.mkdir()
    export.mkdir()
    (export / "config.json").write_text("{}")
    provenance.record(run, export, "model", "ra3kit export")  # a run without provenance: nothing to add to
    assert not (run / provenance.FILE).exists()
    provenance.begin(run, START)
    provenance.record(run, export, "model", "ra3kit export", step=7)
    entry = provenance.read(run)["artefacts"][str(export)]
    assert (entry["kind"], entry["made_by"], entry["step"]) == ("model", "ra3kit export", 7)
    provenance.update(run, {"step": 8}, changed=True)
    assert not provenance.read(run)["artefacts"][str(export)].get("removed")
    assert provenance.verify(run) == []
    (export / "config.json").write_text("{1}")
    assert provenance.verify(run) != []


def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no provenance\.json"):
        provenance.read(tmp_path)
    (tmp_path / provenance.FILE).write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        provenance.read(tmp_path)
    (tmp_path / provenance.FILE).write_text('{"format": 99}')
    with pytest.raises(RunError, match="another format"):
        provenance.read(tmp_path)


def test_secrets_are_blotted_out() -> None:
    assert provenance.redacted("trainer.logger.api_key=abc") == "trainer.logger.api_key=***"
    assert provenance.redacted("--recipe") == "--recipe"
    tree = {"path": ["https://user:word@host/a"], "hub": {"token": "abc"}, "max_tokens": 5, "tokenizer": "t"}
    assert provenance.redacted_tree(tree) == {
        "path": ["https://***@host/a"],
        "hub": {"token": "***"},
        "max_tokens": 5,
        "tokenizer": "t",
    }


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


def test_every_file_of_a_run_is_accounted_for(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ra3kit", "fit", "x.secret=open-sesame"])
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    folder = tmp_path / "run"
    module, few = ra3(), data(path, max_snippets=8, max_val_snippets=2)
    switch = EMSwitch(warmup_steps=2, e_steps=3, m_steps=2)
    fit(folder, module, few, switch, [RunReport(), Provenance()], enable_checkpointing=True)
    record = provenance.read(folder)
    listed = record["artefacts"]
    for name in files(folder):
        assert name == provenance.FILE or any(name == known or name.startswith(f"{known}/") for known in listed), name
    assert provenance.verify(folder) == []
    assert listed["results.json"]["sha256"] == files(folder)["results.json"]
    assert (listed["model"]["step"], listed["model"]["phase"]) == (7, "m")
    store = listed["store/iteration-0"]
    assert (store["step"], store["phase"], store["iteration"]) == (5, "e", 0)
    assert store["made_from"]["data_hash"] == record["data"]["data_hash"] == few.data_hash()
    assert record["tokenizer"] == few.summary()["tokenizer"]
    (start,) = record["starts"]
    assert (start["outcome"], start["from_step"], start["devices"]) == ("finished", 0, "1 x cpu")
    assert start["finished"] >= start["started"]
    assert start["here"] == json.loads(json.dumps(commit(Path.cwd())))
    assert start["environment"]["packages"]["torch"].startswith("2.")
    text = (folder / provenance.FILE).read_text()
    assert "open-sesame" not in text
    assert "hf_0123456789" not in text


def test_a_run_that_fails_says_of_what(path: Path, tmp_path: Path) -> None:
    class Fails(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RunError("the roof\n is on fire")

    with pytest.raises(RunError):
        fit(tmp_path, ra3(), data(path), EMSwitch(e_steps=1), [Provenance(), Fails()])
    (start,) = provenance.read(tmp_path)["starts"]
    assert start["outcome"] == "RunError: the roof is on fire"
    assert start["finished"]


def test_a_killed_run_goes_on_in_the_same_record(tmp_path: Path) -> None:
    """`kill -9` in mid-run: the record is whole, and the next start says what became of the first."""
    folder, texts = tmp_path / "run", corpus(tmp_path / "corpus")
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import lightning as L
from small_world import data, fit, policy
from ra3kit.callbacks.provenance import Provenance

class Killed(L.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == 1:
            (Path(trainer.default_root_dir) / "report.md").write_text("half a run")
        if batch_idx == 2:
            os.kill(os.getpid(), signal.SIGKILL)

fit(Path({str(folder)!r}), policy(), data(Path({str(texts)!r})), callbacks=[Killed(), Provenance()])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    record = provenance.read(folder)
    assert [start["outcome"] for start in record["starts"]] == [None]
    assert record["artefacts"]["report.md"]["step"] == 2
    fit(folder, policy(), data(texts), callbacks=[Provenance()])
    record = provenance.read(folder)
    assert record["starts"][0]["outcome"].startswith("did not end")
    assert record["starts"][1]["outcome"] == "finished"
    assert (record["artefacts"]["report.md"]["start"], record["artefacts"]["report.md"]["step"]) == (0, 2)
    assert provenance.verify(folder) == []


def test_the_record_is_replaced_whole(tmp_path: Path) -> None:
    """A reader never sees half a record while it is written over and over."""
    provenance.begin(tmp_path, START)
    code = (
        "import sys\nfrom pathlib import Path\nfrom ra3kit import provenance\nfolder = Path(sys.argv[1])\n"
        "content = provenance.read(folder)\ncontent['filler'] = 'x' * 1_000_000\n"
        "while True:\n    provenance.write(folder, content)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            provenance.read(tmp_path)
    finally:
        writer.kill()
        writer.wait()
    assert provenance.read(tmp_path)["starts"]


def test_fit_adds_it_and_show_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent / "cli"), *sys.path])
    (tmp_path / "toy.yaml").write_text(
        "model: {class_path: toys.ToyModel, lr: 0.05, head: {class_path: toys.Costly, cost: 0.5}}\n"
        "data: {class_path: toys.ToyData, seed: 1}\n"
        "trainer: {max_epochs: 1, accelerator: cpu, enable_model_summary: false}\n"
    )
    assert main(["fit", "--recipe", "toy.yaml", "run.dir=run", "model.lr=0.1"]) == 0
    (start,) = provenance.read("run")["starts"]
    assert start["recipe"] == {
        "name": "toy",
        "file": str(tmp_path / "toy.yaml"),
        "sha256": hashlib.sha256((tmp_path / "toy.yaml").read_bytes()).hexdigest(),
        "overrides": ["run.dir=run", "model.lr=0.1"],
        "seed": 0,
    }
    capsys.readouterr()
    assert main(["show", "run", "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "recipe.yaml" in shown
    assert "All files are those that were recorded." in shown
    with (tmp_path / "run" / "recipe.yaml").open("a") as recipe:
        recipe.write("# more\n")
    assert main(["show", "run", "--verify"]) == 1
    assert "WRONG  recipe.yaml:" in capsys.readouterr().out
    assert main(["show", "run", "model.lr=1"]) == 2
    assert main(["show", "toy.yaml", "--verify"]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["show", "empty"]) == 2
    assert "has no provenance.json" in capsys.readouterr().err
    assert os.listdir("run").count(provenance.FILE) == 1
