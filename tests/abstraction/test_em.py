"""The whole of RA3 at small size: phases, counters, special cases, and equivalence with plain training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from small_world import CONFIG, TinyTokenizer, corpus, data, fit, policy, ra3

from ra3kit.abstraction.learner import AbstractionLearner
from ra3kit.abstraction.posterior import CausalPosterior, HindsightPosterior, ResampledPosterior
from ra3kit.abstraction.prior import FixedPenalty, TemporalPrior
from ra3kit.actions import ActionSegmenter, PythonStatements, Sentences
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.callbacks.latent_monitor import LatentMonitor, PeakMemory
from ra3kit.callbacks.report import RunReport
from ra3kit.data.packing import StepBatch
from ra3kit.data.store import BootstrappedStore
from ra3kit.errors import RecipeError
from ra3kit.optimize import Optimization
from ra3kit.policy import BasePolicy, LoRA


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


class Log(L.Callback):
    """Keeps what was logged, step by step."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, dict[str, float]]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append((getattr(pl_module, "phase", "ntp"), trainer.global_step, values))

    def of(self, phase: str, name: str) -> list[float]:
        return [values[name] for at, _, values in self.rows if at == phase]


def test_phases_follow_the_plan_and_global_step_counts_optimizer_steps(path: Path, tmp_path: Path) -> None:
    log, switch = Log(), EMSwitch(iterations=2, warmup_steps=3, e_steps=2)
    module, datamodule = ra3(), data(path)
    trainer = fit(tmp_path, module, datamodule, switch, [log])
    passes = len([row for row in log.rows if row[0] == "m"]) // 2
    phases = [row[0] for row in log.rows]
    assert phases == ["warmup"] * 3 + (["e"] * 2 + ["m"] * passes) * 2
    # the control's optimizer steps are not counted: one count per batch, whatever the phase
    assert [step for _, step, _ in log.rows] == list(range(1, len(log.rows) + 1))
    assert trainer.global_step == 3 + 2 * (2 + passes)
    assert [score["phase"] for score in module.scores] == ["warmup", "m", "m"]
    for iteration in (0, 1):
        store = BootstrappedStore.open(tmp_path / "store" / f"iteration-{iteration}")
        assert len(store) == len(datamodule.train)
        assert store.provenance["iteration"] == iteration
        assert store.stats()["thoughts"] > 0
        for annotated, expert in zip(store, datamodule.train, strict=True):
            assert np.array_equal(annotated.without_thoughts().ids, expert.ids)


def test_a_seed_fixes_the_run_and_another_changes_it(path: Path, tmp_path: Path) -> None:
    def run(name: str, seed: int) -> list[float]:
        log = Log()
        fit(tmp_path / name, ra3(seed=seed), data(path), EMSwitch(warmup_steps=2, e_steps=2), [log])
        return log.of("m", "mstep/loss")

    first, again, other = run("a", 0), run("b", 0), run("c", 1)
    assert first == again
    assert first != other


def test_alpha_one_is_next_token_prediction_exactly(path: Path, tmp_path: Path) -> None:
    log = Log()
    prior = TemporalPrior(alpha=1.0, num_latents=100)
    module = ra3(prior=prior)
    fit(tmp_path, module, data(path), EMSwitch(iterations=2, warmup_steps=2, e_steps=1), [log])
    ours, control = log.of("m", "mstep/loss"), log.of("m", "ntp/loss")
    assert len(ours) >= 4
    assert ours == control
    for mine, its in zip(module.policy.parameters(), module.control.parameters(), strict=True):  # type: ignore[union-attr]
        assert torch.equal(mine, its)
    assert BootstrappedStore.open(tmp_path / "store" / "iteration-1").stats()["thoughts"] == 0
    assert max(log.of("e", "estep/thought_rate")) == 0.0


class Automatic(L.LightningModule):
    """Next-token prediction written the ordinary way: automatic optimisation, a LambdaLR, Lightning's clipping."""

    def __init__(self, pi: BasePolicy, total: int) -> None:
        super().__init__()
        self.pi, self.total = pi, total
        self.tokenizer = pi.tokenizer

    def training_step(self, batch: StepBatch, batch_idx: int) -> torch.Tensor:
        rows = [self.pi.row_loss(row) for row in batch.micro]
        loss = sum((row.code + row.thought for row in rows), torch.zeros(())) / batch.trained_tokens
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        settings = self.pi.optimization
        optimizer = settings.optimizer(self.pi.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: settings.lr_at(step, self.total) / settings.lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def ntp_losses(path: Path, folder: Path, **settings: Any) -> tuple[list[float], BasePolicy]:
    log, pi = Log(), policy()
    fit(folder, pi, data(path, **settings), None, [log], limit_val_batches=0, max_epochs=2)
    return log.of("ntp", "ntp/loss"), pi


def test_manual_optimisation_equals_automatic(path: Path, tmp_path: Path) -> None:
    manual, mine = ntp_losses(path, tmp_path / "a")
    log, pi = Log(), policy()
    module = Automatic(pi, total=len(manual))
    fit(tmp_path / "b", module, data(path), None, [log], limit_val_batches=0, max_epochs=2, gradient_clip_val=1.0)
    assert manual == pytest.approx(log.of("ntp", "loss"), abs=1e-5)
    assert manual[-1] < manual[0] - 0.5
    for ours, its in zip(mine.parameters(), pi.parameters(), strict=True):
        torch.testing.assert_close(ours, its, atol=1e-4, rtol=1e-3)


def test_accumulation_is_normalised_by_tokens(path: Path, tmp_path: Path) -> None:
    # rows of unequal numbers of tokens: a mean of means would differ
    one_row, _ = ntp_losses(path, tmp_path / "a", tokens_per_step=900, tokens_per_forward=2000)
    many_rows, _ = ntp_losses(path, tmp_path / "b", tokens_per_step=900, tokens_per_forward=210)
    assert one_row == pytest.approx(many_rows, abs=1e-4)
    assert len(one_row) >= 4


def test_activation_checkpointing_changes_nothing_but_memory(path: Path) -> None:
    row = data(path, tokenizer=TinyTokenizer())
    row.setup("fit")
    (batch, *_) = list(row.train_dataloader())
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        pi = BasePolicy(config=CONFIG, tokenizer=TinyTokenizer(), activation_checkpointing=checkpointing)
        pi.train()
        pi.row_loss(batch.micro[0]).code.backward()
        grads.append(torch.cat([p.grad.flatten() for p in pi.parameters() if p.grad is not None]))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=1e-5)


def test_thinking_before_every_line_and_before_the_first_only(path: Path, tmp_path: Path) -> None:
    always = CausalPosterior(max_length=4, think="always", slots=16, capacity=400)
    fit(tmp_path / "a", ra3(posterior=always), data(path), EMSwitch(e_steps=1))
    for trajectory in BootstrappedStore.open(tmp_path / "a" / "store" / "iteration-0"):
        assert np.array_equal(trajectory.has_thought(), trajectory.may_think)

    brite = CausalPosterior(max_length=4, think="always", where="first_line", slots=16, capacity=400)
    learner = AbstractionLearner(rollouts=3, credit="whole", scale="line_sum")
    fit(tmp_path / "b", ra3(posterior=brite, learner=learner), data(path), EMSwitch(e_steps=1))
    for trajectory in BootstrappedStore.open(tmp_path / "b" / "store" / "iteration-0"):
        thinks = np.flatnonzero(trajectory.has_thought())
        assert thinks.tolist() == np.flatnonzero(trajectory.may_think)[:1].tolist()


def test_an_m_step_from_the_base_starts_pi_and_the_control_there(path: Path, tmp_path: Path) -> None:
    starts: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []

    class Starts(L.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if pl_module.phase == "m":
                both = (pl_module.policy.model, pl_module.control.model)
                starts.append(tuple({k: v.clone() for k, v in m.state_dict().items()} for m in both))  # type: ignore[arg-type]

    fit(tmp_path, ra3(m_start="base"), data(path), EMSwitch(iterations=2, warmup_steps=2, e_steps=1), [Starts()])
    (first, _), *others = starts
    assert len(others) == 1
    for weights in (starts[0][1], *others[0]):
        assert all(torch.equal(weights[name], first[name]) for name in first)


def test_a_plateau_ends_the_e_step(path: Path, tmp_path: Path) -> None:
    log = Log()
    never_gains = EMSwitch(warmup_steps=1, e_steps=30, window=2, min_gain=1e9)
    fit(tmp_path, ra3(), data(path), never_gains, [log])
    assert [row[0] for row in log.rows].count("e") == 4  # they fill both windows; the fifth batch is refused
    rule = EMSwitch(window=2, min_gain=0.1)
    assert rule.should_switch("e", [0.0, 0.0, 0.0, 0.1])
    assert not rule.should_switch("e", [0.0, 0.0, 0.2, 0.1])
    assert not rule.should_switch("e", [0.0, 0.0, 0.0])
    assert not rule.should_switch("m", [0.0] * 9)


def test_the_kl_limit_ends_the_e_step(path: Path, tmp_path: Path) -> None:
    log = Log()
    learner = AbstractionLearner(rollouts=3, scale="line_sum", kl_limit=1e-9, optimization=Optimization(lr=1e-2))
    fit(tmp_path, ra3(learner=learner), data(path), EMSwitch(warmup_steps=1, e_steps=30), [log])
    assert log.of("e", "estep/kl") == [0.0, pytest.approx(log.of("e", "estep/kl")[-1])]  # q = pi, then no more
    assert log.of("e", "estep/kl")[-1] > 1e-9


def test_every_logged_tag_is_documented(path: Path, tmp_path: Path) -> None:
    always = CausalPosterior(max_length=4, think="always", slots=16, capacity=400)
    logger = CSVLogger(str(tmp_path / "csv"))
    switch = EMSwitch(iterations=2, warmup_steps=2, e_steps=2)
    callbacks = [LatentMonitor(every=1), PeakMemory()]
    fit(tmp_path, ra3(pi=policy(), posterior=always), data(path), switch, callbacks, logger=logger, log_every_n_steps=1)
    logger.save()
    header = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0].split(",")
    tags = [tag for tag in header if "/" in tag]
    documented = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert len(tags) > 50
    for tag in tags:
        group, leaf = tag.split("/", 1)
        leaf = leaf.split("/")[-1]
        assert f"`{group}/" in documented, tag
        assert any(form in documented for form in (f"`{leaf}`", f"/{leaf}`")) or leaf.startswith("gain_"), tag


def test_no_e_step_annotates_with_pi(path: Path, tmp_path: Path) -> None:
    log = Log()
    fit(tmp_path, ra3(), data(path), EMSwitch(iterations=1, warmup_steps=1, e_steps=0), [log])
    assert "e" not in {row[0] for row in log.rows}
    assert BootstrappedStore.open(tmp_path / "store" / "iteration-0").stats()["thoughts"] > 0


@pytest.mark.parametrize("kind", ["hindsight", "resampled", "shared", "last", "base"])
def test_every_posterior_trains(kind: str, path: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"max_length": 5, "slots": 16, "capacity": 400}
    posterior = {
        "hindsight": lambda: HindsightPosterior(lines_ahead=2, **common),
        "resampled": lambda: ResampledPosterior(k=3, choose="elbo", **common),
        "shared": lambda: CausalPosterior(weights="shared", **common),
        "last": lambda: CausalPosterior(start="last", **common),
        "base": lambda: CausalPosterior(start="base", **common),
    }[kind]()
    log, module = Log(), ra3(posterior=posterior)
    starts: list[dict[str, torch.Tensor]] = []

    class Starts(L.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if pl_module.phase == "e":
                starts.append({k: v.clone() for k, v in pl_module.posterior.model.state_dict().items()})

    class Ends(Starts):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if pl_module.phase == "e":
                starts.append({k: v.clone() for k, v in pl_module.posterior.model.state_dict().items()})

    # Ends stands before EMSwitch, so that it sees q as the E-step left it
    fit(
        tmp_path,
        module,
        data(path),
        None,
        [Ends(), EMSwitch(iterations=2, warmup_steps=1, e_steps=2), log],
        max_epochs=-1,
    )
    assert all(math.isfinite(value) for value in log.of("e", "estep/loss"))
    first, first_end, second = starts[0], starts[1], starts[2]

    def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(a[name], b[name]) for name in a)

    assert not equal(first, first_end)
    assert equal(second, first_end) == (kind == "last")
    assert equal(second, first) == (kind == "base")


@pytest.mark.parametrize("segmenter", [PythonStatements(), Sentences()], ids=["statements", "sentences"])
def test_other_granularities_of_the_primitive_action(segmenter: ActionSegmenter, path: Path, tmp_path: Path) -> None:
    always = CausalPosterior(max_length=4, think="always", slots=16, capacity=400)
    datamodule = data(path, segmenter=segmenter, comments="keep")
    fit(tmp_path, ra3(posterior=always), datamodule, EMSwitch(warmup_steps=1, e_steps=1))
    store = BootstrappedStore.open(tmp_path / "store" / "iteration-0")
    assert store.stats()["thoughts"] == sum(int(t.may_think.sum()) for t in datamodule.train) > 10


def test_lora_trains_the_adapters_of_pi_and_q_only(path: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pi = BasePolicy(config=CONFIG, tokenizer=TinyTokenizer(), lora=LoRA(rank=4), optimization=Optimization(lr=1e-2))
    always = CausalPosterior(max_length=4, think="always", slots=16, capacity=400)
    module = ra3(pi=pi, posterior=always)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(tmp_path, module, data(path), EMSwitch(warmup_steps=2, e_steps=2))
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert all("lora_" in name for name in changed)
    assert {name.split(".")[0] for name in changed} == {"policy", "posterior", "control"}


class Paid(FixedPenalty):
    """A prior of one's own: thoughts are paid for."""

    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return -super().penalty(is_thought, log_q, may_think)


def test_a_price_stops_thinking_and_pay_brings_it_about(path: Path, tmp_path: Path) -> None:
    def rates(prior: FixedPenalty) -> list[float]:
        log = Log()
        learner = AbstractionLearner(
            rollouts=8, scale="line_sum", optimization=Optimization(lr=1e-2, warmup=0.0, schedule="constant")
        )
        module = ra3(prior=prior, learner=learner, control=False)
        folder = tmp_path / type(prior).__name__
        fit(folder, module, data(path, snippets_per_step=6), EMSwitch(e_steps=12), [log], limit_val_batches=0)
        return log.of("e", "estep/thought_rate")

    priced, paid = rates(FixedPenalty(c=20.0, scale="line_sum")), rates(Paid(c=20.0, scale="line_sum"))
    assert priced[0] == paid[0] > 0.08
    assert priced[-1] < 0.3 * priced[0]
    assert paid[-1] > 3 * paid[0]


def test_reports_and_monitors_leave_their_files(path: Path, tmp_path: Path) -> None:
    log = Log()
    callbacks = [LatentMonitor(every=1, snippets=2), PeakMemory(), RunReport(), log]
    always = CausalPosterior(max_length=4, think="always", slots=16, capacity=400)
    module = ra3(pi=policy(), posterior=always)
    trainer = fit(tmp_path, module, data(path), EMSwitch(warmup_steps=2, e_steps=2), callbacks)
    assert (tmp_path / "report.md").read_text().count("> #") >= 1
    assert (tmp_path / "report.png").stat().st_size > 10_000
    assert module.summary_lines(trainer)[1].startswith("held-out code")
    again = BasePolicy(model=str(tmp_path / "model"))
    trajectory = trainer.datamodule.val[:3]  # type: ignore[attr-defined]
    for ours, loaded in zip(module.policy.score(trajectory), again.score(trajectory), strict=True):
        np.testing.assert_allclose(ours, loaded, atol=1e-6)
    assert log.rows[-1][2]["speed/peak_memory_gib"] > 0


def test_parts_that_do_not_fit_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"prior\.scale='token_mean' but learner\.scale='line_sum'"):
        ra3(prior=FixedPenalty(c=0.05))
    with pytest.raises(RecipeError, match="not with hindsight"):
        ra3(
            posterior=HindsightPosterior(lines_ahead=1, slots=4, capacity=400),
            learner=AbstractionLearner(rollouts=2, scale="line_sum", kl_coef=0.1),
        )
    with pytest.raises(RecipeError, match="reload_dataloaders_every_n_epochs=0"):
        fit(tmp_path, ra3(), data(path), EMSwitch(), reload_dataloaders_every_n_epochs=0)
    with pytest.raises(RecipeError, match="only 'pi' is allowed"):
        CausalPosterior(weights="shared", start="last")


def test_a_report_is_written_over_what_a_killed_run_left_of_it(path: Path, tmp_path: Path) -> None:
    """A run killed while, or after, it writes its model is resumed and writes it again."""
    for name in ("model", "model.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "leftover.safetensors").write_text("half of it")
    fit(tmp_path, policy(), data(path), callbacks=[RunReport()], max_steps=1)
    assert {p.name for p in tmp_path.iterdir()} >= {"model", "results.json"}
    assert not (tmp_path / "model.part").exists()
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert not (tmp_path / "model" / "leftover.safetensors").exists()
