"""The data side of GRPO: which problems, in which step, on which rank; and the account of what is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from ra3kit import provenance
from ra3kit.build import Built
from ra3kit.callbacks.checkpoints import Checkpoints, Resume, data_facts
from ra3kit.callbacks.provenance import Provenance
from ra3kit.checkpoints import find
from ra3kit.cli.plan import rlvr_steps
from ra3kit.data.loader import StepLoader
from ra3kit.errors import DataError, RecipeError, RunError
from ra3kit.evaluation.prompts import prompt_text
from ra3kit.modelcard import Facts, model_card
from ra3kit.rlvr.data import ProblemLoader, RLVRBatch, RLVRDataModule
from ra3kit.rlvr.difficulty import DifficultyFilter
from ra3kit.rlvr.tasks import Task
from ra3kit.testing.models import tiny_tokenizer
from ra3kit.verify.problem import Problem, Streams

TASKS = [Task(Problem(f"p{i}", Streams([str(i)], ["1"]), f"say {i}"), [1, 2 + i], ("\n",)) for i in range(11)]


def names(tasks: Sequence[Task]) -> list[str]:
    return [task.problem.id for task in tasks]


def epoch(loader: StepLoader) -> list[list[str]]:
    return [names(batch.steps[0]) for batch in loader]


def make(tasks: Sequence[Task] = TASKS, size: int = 4, **options: int) -> ProblemLoader:
    return ProblemLoader(tasks, size, **options)


# ---- the loader -----------------------------------------------------------------------------------------------------


def test_an_epoch_gives_each_problem_once_in_an_order_of_seed_and_epoch() -> None:
    steps = epoch(make())
    assert sorted(name for step in steps for name in step) == sorted(names(TASKS))
    assert [len(step) for step in steps] == [4, 4, 3]
    assert epoch(make()) == steps
    assert len({str(epoch(make(**options))) for options in ({}, {"seed": 1}, {"epoch": 1})}) == 3
    kept = make()
    kept.sampler.set_epoch(3)  # as Lightning does with a loader that it keeps
    assert epoch(kept) == epoch(make(epoch=3))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_each_step_whole_and_evenly(world: int) -> None:
    """Twelve problems: no remainder, so the steps are those of one rank, whatever their number."""
    tasks = [*TASKS, Task(Problem("p11", Streams(["11"], ["1"])), [1] * 900, ())]  # a long prompt weighs no more
    alone = epoch(make(tasks))
    ranks = [epoch(make(tasks, rank=rank, world=world)) for rank in range(world)]
    for step, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        assert sorted(name for part in parts for name in part) == sorted(step)
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_a_remainder_that_does_not_reach_all_ranks_joins_the_step_before() -> None:
    ranks = [epoch(make(TASKS[:9], rank=rank, world=2)) for rank in range(2)]
    assert [[len(step) for step in rank] for rank in ranks] == [[2, 3], [2, 2]]


@pytest.mark.parametrize("world", [1, 2])
def test_steps_ahead_are_those_that_come(world: int) -> None:
    """Also over the end of the epoch, and of a whole one."""
    coming: list[tuple[int, list[str]]] = []
    for visit in range(5):
        coming += [(visit, step) for step in epoch(make(epoch=visit, world=world))]
    for visit in range(2):
        for place, batch in enumerate(make(epoch=visit, world=world, ahead=4)):
            number = 3 * visit + place
            assert batch.number == number
            assert [*zip(batch.visits, map(names, batch.steps), strict=True)] == coming[number : number + 5]


def test_resume_in_the_middle_and_refuse_other_problems() -> None:
    whole = epoch(make())
    for stop in range(4):
        loader = make()
        batches = iter(loader)
        for _ in range(stop):
            next(batches)
        state = json.loads(json.dumps(loader.state_dict()))
        again = make()
        again.load_state_dict(state)
        batch_numbers = [batch.number for batch in again]
        assert batch_numbers == list(range(stop, 3))
        again.load_state_dict(state)
        assert epoch(again) == whole[stop:]
    next(iter(loader := make()))
    later = make(epoch=1)
    later.load_state_dict(loader.state_dict())
    assert later.position == 0
    other = [*TASKS[:-1], Task(Problem("p10", Streams(["10"], ["2"]), "say 10"), [1, 12], ("\n",))]  # another test
    for changed in (make(seed=1), make(size=5), make(TASKS[:-1]), make(other)):
        with pytest.raises(DataError, match="cannot resume"):
            changed.load_state_dict(loader.state_dict())


def test_too_little_for_the_ranks() -> None:
    with pytest.raises(DataError, match="2 problems cannot be shared by 3"):
        make(TASKS[:2], world=3)
    with pytest.raises(DataError, match="prompts_per_step=2 cannot be shared by 3"):
        make(size=2, world=3)


# ---- the data module ------------------------------------------------------------------------------------------------


def record(number: int, statement: str = "") -> dict[str, Any]:
    tests = {"inputs": [f"{number}\n"], "outputs": ["1\n"]}
    return {"problem_id": number, "question": statement or f"Print one for {number}.", "input_output": tests}


def write(path: Path, *records: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def data(path: str | list[str] = "ra3kit", **settings: Any) -> RLVRDataModule:
    return RLVRDataModule(path, **{"tokenizer": tiny_tokenizer(), "against": [], "prompts_per_step": 4, **settings})


def test_prompts_are_those_of_eval_and_batches_hold_all(tmp_path: Path) -> None:
    made = data()
    made.setup()
    batches = list(made.train_dataloader())
    assert all(isinstance(batch, RLVRBatch) for batch in batches)
    tasks = [task for batch in batches for task in batch.steps[0]]
    assert sorted(names(tasks)) == sorted(names(made.tasks))
    assert len(tasks) == 24
    tokenizer = tiny_tokenizer()
    for task in tasks:
        assert tokenizer.decode(task.prompt[1:]) == prompt_text(task.problem, "complete")
    assert made.steps_per_epoch() == len(batches) == 6


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *map(record, range(10)), record(10, "word " * 500), {"x": 1})
    made = data(path, max_prompt_tokens=300, max_problems=6)
    summary = made.summary()
    assert (summary["records"], summary["problems"], summary["rejected"]) == (12, 6, {"unknown format": 1})
    assert summary["left_out"] == {"prompt above 300 tokens": 1, "above max_problems=6": 4}
    assert summary["records"] == sum([summary["problems"], 1, *summary["left_out"].values()])
    assert summary["prompt_tokens"] == sum(len(task.prompt) for task in made.tasks)
    assert {task.problem.id for task in made.tasks} < {f"apps/{i}" for i in range(10)}
    assert names(data(path, max_prompt_tokens=300, max_problems=6, seed=1).train_dataloader().tasks) != names(
        made.tasks
    )
    with pytest.raises(DataError, match=r"(?s)no problem to train on.*12 records.*11  left out: prompt above 3 tokens"):
        data(path, max_prompt_tokens=3).setup()


def test_several_paths_are_one_set(tmp_path: Path) -> None:
    one = write(tmp_path / "a" / "x.jsonl", record(1), record(2))
    two = write(tmp_path / "b" / "x.jsonl", record(2), record(3))
    summary = data([one, two, "ra3kit", "ra3kit"]).summary()
    assert (summary["problems"], summary["rejected"]) == (3 + 24, {"duplicate": 1 + 48})
    assert summary["formats"] == {"apps": 4, "ra3kit": 2 * 48}


def test_records_without_a_name_do_not_take_each_others(tmp_path: Path) -> None:
    nameless = [
        {"problem": f"Print {i}.", "tests": [{"input": "1", "output": str(i), "type": "stdin"}]} for i in (1, 2)
    ]
    paths = [write(tmp_path / folder / "x.jsonl", one) for folder, one in zip("ab", nameless, strict=True)]
    made = data(paths)
    made.setup()
    assert len({task.problem.id for task in made.tasks}) == 2


def test_a_refused_split_takes_no_ids_from_the_training_split(tmp_path: Path) -> None:
    write(tmp_path / "apps" / "test.jsonl", record(0, "A test problem."))
    write(tmp_path / "apps" / "train.jsonl", record(0, "A training problem."))
    made = data(str(tmp_path / "apps"))
    assert made.summary()["rejected"] == {}
    assert [task.problem.id for task in made.tasks] == ["apps/0"]
    forced = data(str(tmp_path / "apps"), force=True)
    assert forced.summary()["rejected"] == {"duplicate": 1}  # names of draws have to be unique


def test_evaluation_data_is_refused_or_forced_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "humaneval.jsonl", record(1))
    with pytest.raises(DataError, match="force=True"):
        data(path).setup()
    forced = data(path, force=True)
    assert forced.summary()["evaluation_forced"] == {"HumanEval": 1}
    assert any("TRAINS ON EVALUATION DATA (force): 1 of HumanEval" in line for line in forced.opening_lines())
    both = data([path, write(tmp_path / "train.jsonl", record(2))])
    summary = both.summary()
    assert (summary["evaluation_refused"], summary["evaluation_forced"]) == ({"HumanEval": 1}, {})


def test_excluded_benchmarks_by_id_and_by_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="24  left out: in ra3kit, which is excluded"):
        data(exclude="ra3kit").setup()
    own = data()
    own.setup()
    copied = record(1, own.tasks[0].problem.prompt + "\nThank you.")
    info = {"language": "python", "test_cases": [{"input": "1", "output": "2", "type": "stdin_stdout"}]}
    named = {"problem_id": own.tasks[0].problem.id, "prompt": "In other words.", "verification_info": info}
    made = data(write(tmp_path / "x.jsonl", copied, named, record(2)), exclude=["ra3kit"])
    assert made.summary()["left_out"] == {"in ra3kit, which is excluded": 2}
    assert names(made.tasks) == ["apps/2"]
    with pytest.raises(RecipeError, match="Did you mean 'mbpp"):
        data(exclude=["mbp+"]).setup()


def test_mbpp_can_be_trained_on_without_what_mbpp_plus_asks(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBPP_OVERRIDE_PATH", str(shared_data / "mbpp_plus" / "MbppPlus.jsonl.gz"))
    made = data(str(shared_data / "mbpp" / "mbpp.jsonl"), exclude="mbpp+", max_prompt_tokens=None)
    summary = made.summary()
    assert summary["evaluation_refused"] == {"MBPP": 600}
    # 108 of its 378 tasks are in the train split; another of that split has the text of one of the test split
    assert summary["left_out"] == {"in mbpp+, which is excluded": 108 + 1}
    assert summary["problems"] == 374 - 109


def test_the_hash_tells_problems_tests_and_prompts_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", record(1), record(2))
    here = data(path).data_hash()
    assert data(path).data_hash() == here
    write(tmp_path / "x.jsonl", record(1), {**record(2), "input_output": {"inputs": ["2\n"], "outputs": ["2\n"]}})
    other_test = data(path).data_hash()
    write(tmp_path / "x.jsonl", record(1), record(2, "Print 1 for 2."))
    assert len({here, other_test, data(path).data_hash()}) == 3


def test_the_first_lines_show_a_prompt_as_it_is(tmp_path: Path) -> None:
    made = data(write(tmp_path / "x.jsonl", record(7, "Steer\x1b[2J a terminal."), {"a": 1}))
    lines = made.opening_lines()
    text = "\n".join(lines)
    prompt = made.tasks[0].prompt
    assert "2 records (apps)" in text
    assert "1  unknown format, first x.jsonl:2" in text
    assert f"the prompt of apps/7, {len(prompt)} tokens, ids {' '.join(map(str, prompt[:8]))} ...:" in lines
    shown = lines[lines.index(next(line for line in lines if line.startswith("the prompt"))) + 1 : -1]
    assert "\n".join(shown) == tiny_tokenizer().decode(prompt).replace("\x1b", "\\x1b").rstrip("\n")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts_per_step": 0}, "data.prompts_per_step=0"),
        ({"max_prompt_tokens": 0}, "data.max_prompt_tokens=0"),
        ({"max_problems": 1.5}, "data.max_problems=1.5"),
        ({"seed": -1}, "data.seed=-1"),
        ({"style": "stubs"}, "Did you mean 'stub'"),
        ({"path": "ra3kits"}, "Did you mean 'ra3kit'"),
        ({"format": "aps", "path": "x.jsonl"}, "Did you mean 'apps'"),
        ({"tokenizer": None}, "has no tokenizer"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((DataError, RecipeError), match=message):
        data(**settings).setup()


# ---- in a run -------------------------------------------------------------------------------------------------------


class Asked(L.LightningModule):
    """Notes its batches; "answers" each problem right as often as its number says."""

    def __init__(self, staleness: int = 1, max_positions: int = 4096) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = torch.nn.Module()
        self.policy.model = torch.nn.Linear(2, 2)
        self.tokenizer = tiny_tokenizer()
        self.staleness, self.max_positions, self.max_new_tokens, self.temperature = staleness, max_positions, 64, 1.0
        self.seen: list[RLVRBatch] = []
        self.measured: list[str] = []

    def pass_rates(self, tasks: Sequence[Task], samples: int, seed: int) -> list[tuple[int, int]]:
        self.measured += names(tasks)
        return [(int(task.problem.id.split("/")[1]) % (samples + 1), samples) for task in tasks]

    def training_step(self, batch: RLVRBatch, batch_idx: int) -> None:
        self.seen.append(batch)
        with torch.no_grad():
            self.policy.model.weight += 1  # type: ignore[union-attr,operator]
        self.optimizers().step()  # type: ignore[union-attr]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(folder: Path, *callbacks: Any, **settings: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    every = {"enable_checkpointing": bool(callbacks), "callbacks": list(callbacks), "max_epochs": 2}
    return L.Trainer(default_root_dir=folder, devices=1, **{**quiet, **every, **settings})


def test_a_run_prints_the_account_first_and_carries_steps_ahead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = data(write(tmp_path / "x.jsonl", *map(record, range(10))), tokenizer=None)
    module = Asked(staleness=1)
    trainer(tmp_path).fit(module, datamodule=made)
    assert capsys.readouterr().out.count("10 records (apps)") == 1
    assert [batch.number for batch in module.seen] == list(range(6))
    for before, after in zip(module.seen, module.seen[1:], strict=False):
        assert (names(before.steps[1]), before.visits[1]) == (names(after.steps[0]), after.visits[0])


def test_prompts_and_answers_must_fit_into_the_context(tmp_path: Path) -> None:
    made = data(write(tmp_path / "x.jsonl", record(1)), tokenizer=None)
    with pytest.raises(DataError, match=r"max_new_tokens=64 more than the 70 .* data.max_prompt_tokens=6 or less"):
        trainer(tmp_path).fit(Asked(max_positions=70), datamodule=made)


def test_difficulty_is_measured_once_and_resumed_runs_keep_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the start the weights are others: a pass rate of theirs would be of another policy."""
    path = write(tmp_path / "x.jsonl", *map(record, range(9)))
    made = data(path, tokenizer=None, difficulty=DifficultyFilter(samples=2))
    module, folder = Asked(staleness=0), tmp_path / "run"
    run = trainer(folder, Checkpoints(every_n_steps=1, keep=None), Provenance(), max_steps=1)
    run.fit(module, datamodule=made)
    assert provenance.read(folder)["data"]["difficulty"]["kept"] == 3
    assert len(module.measured) == 9
    kept = {f"apps/{i}" for i in (1, 4, 7)}  # 1 of 2 passes
    assert {name for batch in module.seen for name in names(batch.steps[0])} == kept
    assert made.summary()["difficulty"]["too hard"] == 3
    facts, state = data_facts(run), json.loads(json.dumps(made.state_dict()))
    assert facts is not None
    assert facts["data_hash"] == data(path).data_hash()  # known before anything is measured

    again, later = Asked(staleness=0), data(path, tokenizer=None, difficulty=DifficultyFilter(samples=2))
    later.load_state_dict(state)
    (folder / "difficulty.jsonl").unlink()
    with torch.no_grad():
        again.policy.model.weight += 1  # type: ignore[union-attr,operator]
    trainer(folder).fit(again, datamodule=later)
    assert again.measured == []
    assert "difficulty, measured when the run began: kept 3, too easy 3, too hard 3" in capsys.readouterr().out
    assert {name for batch in again.seen for name in names(batch.steps[0])} == kept


def test_a_stopped_run_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *map(record, range(10)))
    whole, stopped, rest = Asked(), Asked(), Asked()
    trainer(tmp_path / "whole").fit(whole, datamodule=data(path, tokenizer=None))
    run = trainer(tmp_path / "run", Checkpoints(every_n_steps=1, keep=None), max_steps=4)
    run.fit(stopped, datamodule=data(path, tokenizer=None))
    found = find(tmp_path / "run")
    assert len(found) == 4  # inside the epochs of three steps, too
    resume = Resume(found[-1])
    trainer(tmp_path / "run", resume, Checkpoints()).fit(rest, datamodule=data(path, tokenizer=None))
    assert [batch.number for batch in rest.seen] == [4, 5]
    assert [*stopped.seen, *rest.seen] == whole.seen
    other = data(write(tmp_path / "y.jsonl", *map(record, range(11))), tokenizer=None)
    with pytest.raises(RunError, match=r"other data \(data_hash: .*; problems: there 10, here 11"):
        trainer(tmp_path / "run", resume, Checkpoints()).fit(Asked(), datamodule=other)


def test_difficulty_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no trainer"):
        data(difficulty=DifficultyFilter()).train_dataloader()


# ---- what is said of it ---------------------------------------------------------------------------------------------


def test_the_plan_counts_what_a_step_samples(tmp_path: Path) -> None:
    made, module = data(write(tmp_path / "x.jsonl", *map(record, range(10)))), Asked()
    module.group_size = 8  # type: ignore[assignment]
    built = Built(module, made, trainer(tmp_path), {})
    steps = rlvr_steps(built, made.summary())
    mean = sum(len(task.prompt) for task in made.tasks) / 10
    assert steps == {
        "prompts": 4,
        "prompt tokens": f"about {round(4 * mean)}",
        "samples": 32,
        "sampled tokens": "at most 2,048",
        "steps per epoch": 3,
        "steps ahead": 1,
    }
    assert rlvr_steps(Built(L.LightningModule(), made, trainer(tmp_path), {}), made.summary()) == {}


def test_the_card_of_a_model_says_that_it_saw_evaluation_data(tmp_path: Path) -> None:
    def card() -> str:
        summary = data(write(tmp_path / "humaneval.jsonl", record(1)), force=True).summary()
        results = {"data": json.loads(json.dumps(summary))}
        return model_card(Facts("n", "pi", "A", 1, "float32", None, "s", "e", {}, None, "c", results=results), {})

    assert "trained on evaluation data (1 HumanEval): its scores on these sets mean nothing" in card()
    assert data().summary()["evaluation_forced"] == {}
