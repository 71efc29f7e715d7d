from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers import PreTrainedTokenizerFast

from ra3kit.actions import PythonLines, PythonStatements
from ra3kit.data.encode import decode_ids, trajectory_from_text
from ra3kit.data.loader import PhaseLoader
from ra3kit.data.module import TrajectoryDataModule, code_tokens, data_hash
from ra3kit.data.packing import StepBatch
from ra3kit.data.store import BootstrappedStore, StoreWriter
from ra3kit.data.tokenizer import TrainedTokenizer, tokenizer_id
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError

BODY = '''# number {i}
def f{i}(x):
    """Add {i}."""
    y = x + {i}  # the sum

    return y
'''


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(60):
        (folder / f"f{i}.py").write_text(BODY.format(i=i))
    return str(folder)


def make(corpus: str, tokenizer: PreTrainedTokenizerFast | None, **options: Any) -> TrajectoryDataModule:
    settings: dict[str, Any] = {"tokens_per_step": 300, "snippets_per_step": 9, "val_fraction": 0.2, **options}
    return TrajectoryDataModule(corpus, tokenizer=tokenizer, **settings)


def epoch(data: TrajectoryDataModule) -> list[list[str]]:
    return [[t.snippet_id for t in _trajectories(batch)] for batch in data.train_dataloader()]


def _trajectories(batch: StepBatch | list[Trajectory]) -> list[Trajectory]:
    return batch if isinstance(batch, list) else batch.trajectories


def annotate(data: TrajectoryDataModule, folder: Path, **provenance: Any) -> BootstrappedStore:
    thought = data.tokenizer.encode("# intent\n", add_special_tokens=False)
    with StoreWriter(folder, {"tokenizer": tokenizer_id(data.tokenizer), **provenance}, shard_size=16) as writer:
        for t in data.train:
            writer.add(t.weave({i: thought for i in np.flatnonzero(t.may_think)[::2].tolist()}))
    return BootstrappedStore.open(folder)


def test_split_is_by_file_and_warm_up_leaves_held_out_files_out(
    corpus: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    data = make(corpus, tokenizer)
    data.setup()
    train, val = ({t.snippet_id.split("#")[0] for t in part} for part in (data.train, data.val))
    assert val == set(data.val_files)
    assert 4 <= len(val) <= 24
    assert not train & val
    assert len(train | val) == 60
    assert {t.snippet_id.split("#")[0] for t in data.warmup} == train
    text = decode_ids(tokenizer, [data.train[0].ids[1:-1].tolist()])[0]
    warm = decode_ids(tokenizer, [data.warmup[0].ids[1:-1].tolist()])[0]
    assert "#" not in text
    assert '"""Add' in text
    assert "# the sum" in warm


def test_warm_up_from_its_own_corpus(corpus: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    val_file = make(corpus, tokenizer)
    val_file.setup()
    held_out = (Path(corpus) / val_file.val_files[0]).read_text()
    (tmp_path / "copy.py").write_text(held_out)  # under another name
    (tmp_path / "other.py").write_text("x = 1  # one\ny = 2\n")
    data = make(corpus, tokenizer, warmup_path=str(tmp_path))
    data.setup()
    assert [t.snippet_id for t in data.warmup] == ["other.py#0"]
    summary = data.summary()
    assert summary["warmup_dropped_files"] == {"excluded": 1}
    assert summary["warmup_snippets"] == 1


def test_phases_give_what_they_promise(corpus: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    data = make(corpus, tokenizer)
    data.setup()
    expert = {t.snippet_id: t for t in data.train}
    for phase in ("ntp", "warmup", "e"):
        data.set_phase(phase)  # type: ignore[arg-type]
        assert sorted(n for b in epoch(data) for n in b) == sorted(expert)
        for batch in data.train_dataloader():
            assert isinstance(batch, list if phase == "e" else StepBatch)
    store = annotate(data, tmp_path / "store")
    data.set_phase("m", store)
    seen = 0
    for batch in data.train_dataloader():
        assert isinstance(batch, StepBatch)
        plain = [expert[t.snippet_id] for t in batch.trajectories]
        for rows, trajectories in ((batch.micro, batch.trajectories), (batch.plain, plain)):
            assert [i for row in rows for i in row.ids.tolist()] == [i for t in trajectories for i in t.ids.tolist()]
        assert batch.trained_tokens > sum(r.trained_tokens for r in batch.plain)
        seen += len(batch.trajectories)
    assert seen == len(expert)
    val = [t for batch in data.val_dataloader() for t in batch]
    assert [t.snippet_id for t in val] == [t.snippet_id for t in data.val]
    assert not any(len(t.thoughts) for t in val)


def test_ids_that_ntp_trains_on_are_those_of_the_text(corpus: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """File to packed row, end to end: the ids of a snippet in phase ntp decode to its file, start and end added."""
    data = make(corpus, tokenizer, comments="keep")
    data.setup()
    for batch in data.train_dataloader():
        assert isinstance(batch, StepBatch)
        for row in batch.micro:
            for ids in row.ids.split(row.lengths):
                text = decode_ids(tokenizer, [ids[1:-1].tolist()])[0]
                number = text.split()[2]
                assert text == (Path(corpus) / f"f{number}.py").read_text()
                again = trajectory_from_text(tokenizer, "x", text, PythonLines())
                assert ids.tolist() == again.ids.tolist()


def test_orders_are_deterministic_and_change_with_epoch_and_seed(
    corpus: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    one, two = make(corpus, tokenizer), make(corpus, tokenizer)
    assert epoch(one) == epoch(one) == epoch(two)
    first = epoch(one)
    one.set_phase("ntp")
    assert epoch(one) != first
    assert epoch(make(corpus, tokenizer, seed=1)) != first
    one.set_phase("ntp", steps=2)
    assert len(epoch(one)) == one.phase_steps() == 2
    one.set_phase("e", steps=50)
    assert len(epoch(one)) == one.phase_steps() == 50


def test_limits_on_snippets(corpus: str, tokenizer: PreTrainedTokenizerFast) -> None:
    data = make(corpus, tokenizer, max_snippets=7, max_val_snippets=2)
    data.setup()
    assert (len(data.train), len(data.val), len(data.warmup)) == (7, 2, 7)
    again = make(corpus, tokenizer, max_snippets=7, max_val_snippets=2)
    assert again.data_hash() == data.data_hash() != data_hash([])
    other = make(corpus, tokenizer, max_snippets=7, max_val_snippets=2, seed=5)
    other.setup()
    assert {t.snippet_id for t in other.train} != {t.snippet_id for t in data.train}


def test_summary_accounts_for_everything(corpus: str, tokenizer: PreTrainedTokenizerFast) -> None:
    data = make(corpus, tokenizer)
    summary = data.summary()
    assert summary["files"] == 60
    assert summary["train_snippets"] + summary["val_snippets"] == 60
    assert summary["train_code_tokens"] == code_tokens(data.train) == sum(len(t.ids) - 2 for t in data.train)
    assert summary["dropped_files"] == summary["dropped_lines"] == {}
    assert summary["tokenizer"] == tokenizer_id(tokenizer)
    assert summary["data_hash"] == make(corpus, tokenizer).summary()["data_hash"]
    assert summary["data_hash"] != make(corpus, tokenizer, comments="keep").summary()["data_hash"]
    assert "warmup_snippets" not in summary  # not asked for, so not read
    _ = data.warmup
    assert data.summary()["warmup_snippets"] == len(data.train)


def test_nothing_held_out(corpus: str, tokenizer: PreTrainedTokenizerFast) -> None:
    data = make(corpus, tokenizer, val_fraction=0.0)
    assert list(data.val_dataloader()) == []
    assert len(data.train) == 60


def test_segmenter_and_tokenizer_can_be_swapped(corpus: str, tmp_path: Path) -> None:
    data = make(corpus, None)
    with pytest.raises(DataError, match="no tokenizer"):
        data.setup()
    spec = TrainedTokenizer(corpus, 300, "llama3")
    data = TrajectoryDataModule(corpus, tokenizer=spec, segmenter=PythonStatements())
    data.setup()
    assert data.tokenizer is spec.load()
    assert data.train[0].ids[0] == data.tokenizer.bos_token_id
    spec.load().save_pretrained(tmp_path)
    by_folder = TrajectoryDataModule(corpus, tokenizer=str(tmp_path), segmenter=PythonStatements())
    by_folder.setup()
    assert by_folder.data_hash() == data.data_hash()


def test_built_from_a_recipe(corpus: str) -> None:
    """Types and class paths as a recipe gives them, through the parser that the command line uses."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TrajectoryDataModule, "data")
    arguments = {
        "path": [corpus],
        "tokenizer": {
            "class_path": "ra3kit.data.tokenizer.TrainedTokenizer",
            "init_args": {"corpus": corpus, "vocab_size": 280},
        },
        "segmenter": {"class_path": "ra3kit.actions.PythonLines", "init_args": {"blank_lines": "own"}},
        "tokens_per_step": 300,
    }
    config = {"data": {"class_path": "ra3kit.data.module.TrajectoryDataModule", "init_args": arguments}}
    data = parser.instantiate(parser.parse_object(config)).data
    data.setup("fit")
    assert (len(data.tokenizer), data.tokens_per_step) == (280, 300)
    assert len(data.train[0].lines) == 5  # the blank line is one of them
    config["data"]["init_args"]["comments"] = "remove"
    with pytest.raises(ArgumentError, match="remove"):
        parser.parse_object(config)


def test_bad_requests_are_refused(corpus: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    data = make(corpus, tokenizer)
    data.setup()
    with pytest.raises(DataError, match=r"phase='warmpu': allowed are .* Did you mean 'warmup'"):
        data.set_phase("warmpu")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="takes a store"):
        data.set_phase("m")
    with pytest.raises(DataError, match="steps=0"):
        data.set_phase("e", steps=0)
    store = annotate(data, tmp_path / "store")
    with pytest.raises(DataError, match="and no other, takes a store"):
        data.set_phase("e", store)
    with StoreWriter(tmp_path / "other", {"tokenizer": "0" * 16}) as writer:
        writer.add(data.train[0])
    with pytest.raises(DataError, match="written with tokenizer 0000000000000000"):
        data.set_phase("m", BootstrappedStore.open(tmp_path / "other"))
    with StoreWriter(tmp_path / "empty", {}):
        pass
    with pytest.raises(DataError, match="is empty"):
        data.set_phase("m", BootstrappedStore.open(tmp_path / "empty"))
    data.set_phase("m", store)
    with pytest.raises(DataError, match="raise the latter"):
        make(corpus, tokenizer, max_tokens=600, tokens_per_forward=500)
    with pytest.raises(DataError, match="comments='remove'"):
        make(corpus, tokenizer, comments="remove")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.py").write_text("def (:\n  x\n")
    with pytest.raises(
        DataError, match=r"no usable snippet: 1 texts read; left out: 1 unparsable \(first: a.py\)\. Set data"
    ):
        make(str(tmp_path / "bad"), tokenizer).setup()


@pytest.mark.parametrize("phase", ["e", "m"])
def test_state_dict_resumes_in_mid_epoch(
    corpus: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, phase: str
) -> None:
    data = make(corpus, tokenizer)
    data.setup()
    store = annotate(data, tmp_path / "store")
    data.set_phase("ntp")
    data.set_phase(phase, store if phase == "m" else None, steps=9)  # type: ignore[arg-type]
    whole = epoch(data)
    assert len(whole) == 9
    batches = iter(data.train_dataloader())
    before = [[t.snippet_id for t in _trajectories(next(batches))] for _ in range(4)]
    state = data.state_dict()
    again = make(corpus, tokenizer)
    again.load_state_dict(state)
    assert again.state_dict()["phase"] == phase
    assert before + epoch(again) == whole
    assert epoch(again) == whole


def test_moving_batches(corpus: str, tokenizer: PreTrainedTokenizerFast) -> None:
    data = make(corpus, tokenizer)
    step = next(iter(data.train_dataloader()))
    assert data.transfer_batch_to_device(step, torch.device("meta"), 0).micro[0].ids.device.type == "meta"
    data.set_phase("e")
    snippets = next(iter(data.train_dataloader()))
    assert data.transfer_batch_to_device(snippets, torch.device("meta"), 0) is snippets


class Recorder(L.LightningModule):
    """Notes what each step was given; alternates phases ntp and e at the end of every epoch."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.tokenizer = tokenizer
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, int, tuple[str, ...]]] = []
        self.validated: list[str] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, batch: StepBatch | list[Trajectory], batch_idx: int) -> None:
        names = tuple(t.snippet_id for t in _trajectories(batch))
        self.seen.append((self.current_epoch, batch_idx, names))
        self.optimizers().step()  # type: ignore[union-attr]

    def validation_step(self, batch: list[Trajectory], batch_idx: int) -> None:
        self.validated += [t.snippet_id for t in batch]

    def on_train_epoch_end(self) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        data.set_phase("e" if data.phase == "ntp" else "ntp")


def fit(corpus: str, folder: Path, tokenizer: PreTrainedTokenizerFast, checkpoint: str | None = None) -> Recorder:
    model, data = Recorder(tokenizer), make(corpus, None, max_snippets=24)
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)],
    )
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    return model


@pytest.mark.filterwarnings("ignore")
def test_lightning_feeds_and_resumes_phases(corpus: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """One epoch is one phase, and a run resumed from any checkpoint inside an epoch sees what an unbroken one sees."""
    whole = fit(corpus, tmp_path / "whole", tokenizer)
    sizes = [sum(e == k for e, _, _ in whole.seen) for k in range(3)]
    for k, phase in enumerate(("ntp", "e", "ntp")):
        names = [n for e, _, batch in whole.seen if e == k for n in batch]
        assert len(names) == len(set(names)) == 24, phase
    assert sizes[1] == 3  # 24 snippets, 9 a batch
    assert [batch for e, _, batch in whole.seen if e == 0] != [batch for e, _, batch in whole.seen if e == 2]
    assert len(whole.validated) % 3 == 0
    inside = [1, sizes[0] - 1, sizes[0] + 1, sizes[0] + 2, sum(sizes[:2]) + 2]
    for step in inside:
        resumed = fit(corpus, tmp_path / f"from-{step}", tokenizer, str(tmp_path / "whole" / f"step={step}.ckpt"))
        assert resumed.seen == whole.seen[step:], step


def test_ranks_come_from_the_trainer(corpus: str, tokenizer: PreTrainedTokenizerFast) -> None:
    class FakeTrainer:
        current_epoch = 4

        def __init__(self, rank: int) -> None:
            self.distributed_sampler_kwargs = {"num_replicas": 2, "rank": rank}

    loaders: list[PhaseLoader] = []
    for rank in range(2):
        data = make(corpus, tokenizer)
        data.trainer = FakeTrainer(rank)  # type: ignore[assignment]
        loaders.append(data.train_dataloader())
        assert len(data.val_dataloader()) == -(-len(data.val) // 9)
    names = [[t.snippet_id for batch in loader for t in _trajectories(batch)] for loader in loaders]
    assert len(loaders[0]) == len(loaders[1])
    assert loaders[0].epoch == 4
    assert not set(names[0]) & set(names[1])
    assert sorted(names[0] + names[1]) == sorted(t.snippet_id for t in data.train)
