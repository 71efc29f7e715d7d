from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ra3kit.data.store import BootstrappedStore, StoreWriter
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError, RunError

PROVENANCE = {"tokenizer": "abc", "iteration": 1, "settings": {"c": 0.05, "lengths": (1, 2)}}


def trajectory(i: int) -> Trajectory:
    may_think = [k != 1 for k in range(3 + i % 4)]
    expert = Trajectory.from_lines(f"näme/{i}.py#0", [[7, i, k] for k in range(len(may_think))], may_think, 1, 2)
    return expert.weave({k: [90, 91] for k in range(0, len(may_think), 2) if i % 3})


DATA = [trajectory(i) for i in range(25)]


def same(one: Trajectory, two: Trajectory) -> bool:
    parts = ("ids", "lines", "may_think", "thoughts")
    arrays = [(getattr(one, part), getattr(two, part)) for part in parts]
    return one.snippet_id == two.snippet_id and all(
        np.array_equal(a, b) and a.dtype == b.dtype and a.shape == b.shape for a, b in arrays
    )


def write(folder: Path, data: list[Trajectory] = DATA, shard_size: int = 10) -> BootstrappedStore:
    with StoreWriter(folder, PROVENANCE, shard_size) as writer:
        for item in data:
            writer.add(item)
    return BootstrappedStore.open(folder)


def test_round_trip(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    assert len(store) == 25
    assert all(same(a, b) for a, b in zip(store, DATA, strict=True))
    assert same(store[-1], DATA[-1])
    assert [t.snippet_id for t in store[8:12]] == [t.snippet_id for t in DATA[8:12]]
    assert store.provenance == {"tokenizer": "abc", "iteration": 1, "settings": {"c": 0.05, "lengths": [1, 2]}}
    for item in store:
        item.check()
    with pytest.raises(IndexError):
        store[25]
    names = sorted(p.name for p in (tmp_path / "store").iterdir())
    assert names == ["manifest.json", "shard-00000.arrow", "shard-00001.arrow", "shard-00002.arrow"]


def test_rows_can_be_written_to_without_reaching_the_file(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    store[0].ids[:] = 0
    assert same(store[0], DATA[0])


def test_stats_and_lengths(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    assert store.lengths().tolist() == [len(t.ids) for t in DATA]
    assert store.plain_lengths().tolist() == [len(t.without_thoughts().ids) for t in DATA]
    thoughts = sum(len(t.thoughts) for t in DATA)
    legal = sum(int(t.may_think.sum()) for t in DATA)
    lines = sum(len(t.lines) for t in DATA)
    assert store.stats() == {
        "trajectories": 25,
        "tokens": sum(len(t.ids) for t in DATA),
        "code_tokens": 3 * lines,
        "lines": lines,
        "lines_may_think": legal,
        "thoughts": thoughts,
        "thought_tokens": 2 * thoughts,
        "thought_rate": thoughts / legal,
        "tokens_per_thought": 2.0,
        "lines_per_thought": lines / thoughts,
    }


def test_stats_without_thoughts(tmp_path: Path) -> None:
    stats = write(tmp_path / "store", [t.without_thoughts() for t in DATA]).stats()
    assert (stats["thoughts"], stats["thought_rate"], stats["tokens_per_thought"]) == (0, 0.0, 0.0)
    assert stats["lines_per_thought"] == float("inf")


def test_an_interrupted_writer_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    writer = StoreWriter(folder, PROVENANCE, shard_size=4)
    for item in DATA[:10]:
        writer.add(item)
    del writer  # two whole shards are there, two trajectories are lost
    (folder / "shard-00002.tmp").write_bytes(b"half a shard")
    with pytest.raises(DataError, match="was not finished"):
        BootstrappedStore.open(folder)
    again = StoreWriter(folder, PROVENANCE, shard_size=7)
    assert again.next_index == 8
    assert not again.finished
    for item in DATA[again.next_index :]:
        again.add(item)
    again.finish()
    assert again.next_index == 25
    assert not list(folder.glob("*.tmp"))
    assert all(same(a, b) for a, b in zip(BootstrappedStore.open(folder), DATA, strict=True))


def test_a_writer_killed_in_its_first_act_goes_on(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "writing.tmp").write_text("{")
    assert len(write(tmp_path / "store")) == 25
    assert not list((tmp_path / "store").glob("*.tmp"))


def test_shards_in_any_order_from_several_writers(tmp_path: Path) -> None:
    one, two = (StoreWriter(tmp_path / "store", PROVENANCE, 10) for _ in range(2))
    assert one.missing(25) == two.missing(25) == [0, 1, 2]
    two.write(2, DATA[20:])
    one.write(1, DATA[10:20])
    with pytest.raises(DataError, match="shard 1 is already written"):
        one.write(1, DATA[10:20])
    with pytest.raises(DataError, match=r"shard 0 is missing but shard-00001\.arrow is there"):
        one.finish()
    again = StoreWriter(tmp_path / "store", PROVENANCE, 10)
    assert again.missing(25) == [0]
    with pytest.raises(DataError, match="shard 1 has 10 trajectories where 9 belong"):
        again.missing(19)
    again.write(0, DATA[:10])
    again.finish()
    store = BootstrappedStore.open(tmp_path / "store")
    assert all(same(a, b) for a, b in zip(store, DATA, strict=True))


def test_a_full_disk_is_named_and_whole_shards_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = StoreWriter(tmp_path / "store", PROVENANCE, 10)
    writer.write(0, DATA[:10])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(RunError, match=r"store could not be written: .*No space left on device.*whole stay"):
            writer.write(1, DATA[10:20])
    assert StoreWriter(tmp_path / "store", PROVENANCE, 10).missing(25) == [1, 2]


@pytest.mark.parametrize("moment", ["shard", "manifest"])
def test_a_failing_write_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    folder = tmp_path / "store"
    target = {"shard": "shard-00001.arrow", "manifest": "manifest.json"}[moment]
    replace = Path.replace

    def crash(self: Path, other: Path) -> Path:
        if other.name == target:
            raise KeyboardInterrupt
        return replace(self, other)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            write(folder)
    assert not (folder / target).exists()
    with pytest.raises(DataError, match="was not finished"):
        BootstrappedStore.open(folder)
    with StoreWriter(folder, PROVENANCE, 10) as writer:
        assert writer.next_index == {"shard": 10, "manifest": 25}[moment]
        for item in DATA[writer.next_index :]:
            writer.add(item)
    assert all(same(a, b) for a, b in zip(BootstrappedStore.open(folder), DATA, strict=True))


def test_an_exception_in_the_block_leaves_the_store_unfinished(tmp_path: Path) -> None:
    bad = Trajectory("bad", DATA[0].ids, DATA[0].lines[1:], DATA[0].may_think[1:], DATA[0].thoughts)
    with pytest.raises(DataError, match="bad: span"):
        write(tmp_path / "s", [*DATA[:5], bad], shard_size=2)
    assert StoreWriter(tmp_path / "s", PROVENANCE).next_index == 4


def test_a_finished_store_is_final(tmp_path: Path) -> None:
    write(tmp_path / "store")
    writer = StoreWriter(tmp_path / "store", PROVENANCE)
    assert writer.finished
    assert writer.next_index == 25
    with pytest.raises(DataError, match="is finished"):
        writer.add(DATA[0])
    writer.finish()  # nothing to do
    assert len(BootstrappedStore.open(tmp_path / "store")) == 25


@pytest.mark.parametrize("finished", [True, False])
def test_other_provenance_is_refused(tmp_path: Path, finished: bool) -> None:
    writer = StoreWriter(tmp_path / "store", PROVENANCE, 10)
    for item in DATA:
        writer.add(item)
    if finished:
        writer.finish()
    with pytest.raises(DataError, match=r"other provenance \(iteration: there 1, given 2; seed: there None, given 0\)"):
        StoreWriter(tmp_path / "store", {**PROVENANCE, "iteration": 2, "seed": 0})
    assert StoreWriter(tmp_path / "store", PROVENANCE).next_index == (25 if finished else 20)


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(DataError, match="holds no store"):
        StoreWriter(tmp_path, PROVENANCE)
    with pytest.raises(DataError, match="is not there"):
        BootstrappedStore.open(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_damage_is_found(tmp_path: Path) -> None:
    write(tmp_path / "a")
    shard = tmp_path / "a" / "shard-00001.arrow"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match=r"shard-00001.arrow: missing or damaged"):
        BootstrappedStore.open(tmp_path / "a")
    write(tmp_path / "b")
    (tmp_path / "b" / "shard-00001.arrow").unlink()
    with pytest.raises(DataError, match=r"shard-00001.arrow: missing or damaged"):
        BootstrappedStore.open(tmp_path / "b")
    with pytest.raises(DataError, match="shard 1 is missing"):
        StoreWriter(tmp_path / "b", PROVENANCE)
    write(tmp_path / "c")
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    manifest["shards"][0]["rows"] = 9
    (tmp_path / "c" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="10 trajectories where the manifest has 9"):
        BootstrappedStore.open(tmp_path / "c")
    manifest["format"] = 99
    (tmp_path / "c" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="store format 99"):
        BootstrappedStore.open(tmp_path / "c")


def test_parts_of_several_ranks(tmp_path: Path) -> None:
    write(tmp_path / "rank-0", DATA[:11])
    write(tmp_path / "rank-1", DATA[11:])
    store = BootstrappedStore.open(tmp_path / "rank-0", tmp_path / "rank-1")
    assert all(same(a, b) for a, b in zip(store, DATA, strict=True))
    assert BootstrappedStore.open(*store.folders).stats() == store.stats()
    with StoreWriter(tmp_path / "other", {"tokenizer": "abc"}) as writer:
        writer.add(DATA[0])
    with pytest.raises(DataError, match="other provenance"):
        BootstrappedStore.open(tmp_path / "rank-0", tmp_path / "other")


def test_an_empty_store(tmp_path: Path) -> None:
    store = write(tmp_path / "store", [])
    assert len(store) == 0
    assert list(store) == []
    assert store.lengths().tolist() == store.plain_lengths().tolist() == []
    assert store.stats()["tokens"] == 0


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="what JSON can"):
        StoreWriter(tmp_path / "a", {"model": object()})
    with pytest.raises(DataError, match="shard_size=0"):
        StoreWriter(tmp_path / "b", {}, shard_size=0)


def test_shards_are_plain_arrow_files(tmp_path: Path) -> None:
    write(tmp_path / "store")
    with pa.memory_map(str(tmp_path / "store" / "shard-00000.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.column_names == ["snippet_id", "ids", "lines", "may_think", "thoughts"]
    assert table["ids"][3].as_py() == DATA[3].ids.tolist()
