"""The M-step against TRL's SFTTrainer, and packed rows against padded ones, on real Python snippets.

    pip install -e '.[bench]'
    python benchmarks/mstep.py [--quick] [--device cpu|cuda] [--models tiny small ...] [--data stdlib:expert ...]

Every arm trains the same weights on the same snippets with the same loss, AdamW and clipping, and logs every step to
TensorBoard; no checkpoints, no evaluation. What differs is how snippets become forwards:

- ours: `BasePolicy` on packed rows in a Lightning Trainer, as `ra3kit fit` runs it
- ours_unpacked: the same, one snippet a forward
- hf_padded: what one writes with Lightning and transformers: a padding collator, `model(...).loss`
- trl_padded: TRL's default; trl_unpacked: one snippet a forward
- trl_packed: `packing=True` (bfd); its rows are kept apart by position ids, with FlashAttention where it is installed,
  else by a dense mask that transformers derives from them
- trl_wrapped: `packing_strategy="wrapped"`: cuts snippets anywhere and lets those of a row see each other, so its loss
  is another one; it is here for its speed alone

Matched arms are checked: the loss of each step is that of ours on the same snippets to 1e-4 of a nat at the first step.
One thread on the CPU and CPU seconds of the process, medians of interleaved rounds; on CUDA wall seconds.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import lightning as L
import numpy as np
import torch
from common import Report, default_out, peak_memory, synchronize, versions
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from models import COMMON, CONFIGS, forward_flops, peak_flops
from steps import PackedSteps, Padded, PaddedSteps, trained_tokens
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ra3kit.data.packing import StepBatch, pack
from ra3kit.data.snippets import Corpus
from ra3kit.data.tokenizer import TrainedTokenizer
from ra3kit.data.trajectory import Trajectory
from ra3kit.optimize import Optimization, clip_gradients
from ra3kit.policy import BasePolicy

ARMS = ["ours", "ours_unpacked", "hf_padded", "trl_padded", "trl_unpacked", "trl_packed", "trl_wrapped"]
SAME_STEPS = ["ours", "ours_unpacked", "hf_padded", "trl_padded", "trl_unpacked"]
"""Arms whose steps hold the same snippets; packing in TRL rearranges them."""
ADAMW = Optimization(lr=1e-3, weight_decay=0.1, betas=(0.9, 0.95), warmup=0.0, schedule="constant", clip=1.0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small version in under a minute; writes no file")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--models", nargs="+", choices=list(CONFIGS), help="default tiny, on cuda qwen2.5-1.5b")
    parser.add_argument("--data", nargs="+", default=["stdlib:expert"], help="corpora, each a condition of its own")
    parser.add_argument("--max-tokens", type=int, default=1024, help="of a snippet, as in the recipes")
    parser.add_argument("--max-lines", type=int, default=128, help="of a snippet, as in the recipes")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--snippets", type=int, default=8, help="of one optimizer step")
    parser.add_argument("--padded-rows", type=int, default=8, help="snippets of one padded forward; 8 as transformers")
    parser.add_argument("--tokens-per-forward", type=int, default=4096, help="of one packed row of ours")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a round, after one that is not")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--attention", default="sdpa", help="of the Hugging Face models: sdpa, flash_attention_2")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for MFU; known for common cards")
    parser.add_argument("--profile", action="store_true", help="only say what a step of ours spends its CPU time on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="results file; default benchmarks/results/mstep.json")
    options = parser.parse_args()
    options.models = options.models or ["tiny" if options.device == "cpu" else "qwen2.5-1.5b"]
    if options.quick:
        options.models, options.steps, options.rounds = options.models[:1], 1, 1
        options.max_tokens, options.max_lines = 192, 24
    options.out = options.out or default_out("mstep", options.quick)
    return options


@dataclass
class Run:
    """One arm trained once: CPU and wall clock at the end of each step, its loss and its trained tokens."""

    device: str
    tokens: list[int]
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def tick(self) -> None:
        """Called at the end of every optimizer step."""
        synchronize(self.device)
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())


class Bench:
    """One model and one corpus."""

    def __init__(self, options: argparse.Namespace, model: str, data: str):
        self.options, self.device = options, options.device
        config = {**COMMON, **CONFIGS[model]}
        self.tokenizer = TrainedTokenizer(vocab_size=min(config["vocab_size"], 8192))
        self.config = {"model_type": "qwen2", **config}
        self.snippets = self._snippets(data)
        torch.manual_seed(options.seed)
        self.weights = {name: value.clone() for name, value in self.hf_model().state_dict().items()}

    def _snippets(self, data: str) -> list[Trajectory]:
        """Snippets of one round in random order, out of those of many files."""
        options = self.options
        wanted = options.snippets * (options.steps + 1)
        pool = 8 * wanted if options.quick else 1200
        corpus = Corpus(data, comments="strip", max_tokens=options.max_tokens, max_lines=options.max_lines)
        found = [snippet.trajectory for snippet in islice(corpus.snippets(self.tokenizer.load()), pool)]
        if len(found) < wanted:
            raise SystemExit(f"{data} gave only {len(found)} snippets; {wanted} are needed")
        return [found[i] for i in np.random.default_rng(options.seed).permutation(len(found))[:wanted]]

    def hf_model(self) -> PreTrainedModel:
        """A Hugging Face model as anybody builds one, at the weights of this benchmark."""
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**self.config), attn_implementation=self.options.attention, dtype=torch.float32
        )
        if hasattr(self, "weights"):
            model.load_state_dict(self.weights)
        return model

    def policy(self) -> BasePolicy:
        policy = BasePolicy(config=self.config, tokenizer=self.tokenizer, optimization=ADAMW)
        policy.model.load_state_dict(self.weights)
        return policy

    def groups(self) -> list[list[Trajectory]]:
        """The snippets of each optimizer step."""
        n = self.options.snippets
        return [self.snippets[at : at + n] for at in range(0, len(self.snippets), n)]

    def train(self, arm: str, steps: int | None = None) -> Run:
        """Train an arm on all snippets, or on those of the first steps."""
        groups = self.groups()[:steps]
        with tempfile.TemporaryDirectory() as folder:
            if arm.startswith("trl"):
                return self._trl(arm, [t for group in groups for t in group], folder)
            if arm == "hf_padded":
                return self._lightning(
                    Padded(self.hf_model(), ADAMW), PaddedSteps(groups, self.options.padded_rows), folder
                )
            tokens = 1 if arm == "ours_unpacked" else self.options.tokens_per_forward
            return self._lightning(self.policy(), PackedSteps(groups, tokens), folder)

    def _lightning(self, module: L.LightningModule, steps: PackedSteps | PaddedSteps, folder: str) -> Run:
        run = Run(self.device, [trained_tokens(group) for group in steps.groups])
        trainer = L.Trainer(
            max_epochs=1,
            accelerator=self.device,
            devices=1,
            precision="32-true" if self.device == "cpu" else "bf16-mixed",
            logger=TensorBoardLogger(folder),
            log_every_n_steps=1,
            callbacks=[LightningClock(run)],
            accumulate_grad_batches=getattr(steps, "forwards", 1),
            gradient_clip_val=None if isinstance(module, BasePolicy) else ADAMW.clip,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, train_dataloaders=steps)
        return run

    def trl_trainer(self, arm: str, snippets: Sequence[Trajectory], folder: str, run: Run) -> Any:
        from transformers import PrinterCallback
        from trl import SFTConfig, SFTTrainer

        packing = arm in ("trl_packed", "trl_wrapped")
        rows = self.options.padded_rows if arm == "trl_padded" else 1
        n_rows = self.options.snippets
        if packing:  # rows of max_length tokens, as many a step as hold the tokens of one step of the others
            tokens = sum(len(t.ids) for t in snippets) / (len(snippets) / self.options.snippets)
            n_rows = max(1, round(tokens / self.options.max_tokens))
        settings = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=max(1, n_rows // rows),
            num_train_epochs=1,
            max_length=self.options.max_tokens,
            packing=packing,
            packing_strategy="wrapped" if arm == "trl_wrapped" else "bfd",
            train_sampling_strategy="sequential",  # the snippets are in random order already
            learning_rate=ADAMW.lr,
            weight_decay=ADAMW.weight_decay,
            adam_beta1=ADAMW.betas[0],
            adam_beta2=ADAMW.betas[1],
            max_grad_norm=ADAMW.clip,
            lr_scheduler_type=ADAMW.schedule,
            warmup_steps=0,
            logging_steps=1,
            report_to="tensorboard",
            save_strategy="no",
            gradient_checkpointing=False,
            bf16=self.device == "cuda",
            use_cpu=self.device == "cpu",
            dataloader_pin_memory=self.device == "cuda",
            disable_tqdm=True,
            seed=self.options.seed,
        )
        trainer = SFTTrainer(
            model=self.hf_model(),
            args=settings,
            train_dataset=datasets.Dataset.from_dict({"input_ids": [t.ids.tolist() for t in snippets]}),
            processing_class=self.tokenizer.load(),
            callbacks=[trl_clock(run)],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _trl(self, arm: str, snippets: Sequence[Trajectory], folder: str) -> Run:
        run = Run(self.device, [])
        trainer = self.trl_trainer(arm, snippets, folder, run)
        rows = trainer.train_dataset
        sequences = rows["seq_lengths"] if arm == "trl_packed" else [[len(ids)] for ids in rows["input_ids"]]
        trained = [sum(lengths) - len(lengths) for lengths in sequences]
        n = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
        run.tokens = [sum(trained[at : at + n]) for at in range(0, len(trained), n)]
        trainer.train()
        run.losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return run

    def loss_of_first_trl_step(self, arm: str) -> float:
        """Our loss in nats a token at the initial weights on what a TRL arm trains on first."""
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.trl_trainer(arm, self.snippets, folder, Run(self.device, []))
            forwards = trainer.args.gradient_accumulation_steps
            batches = list(islice(trainer.get_train_dataloader(), forwards))
        sequences = []
        for batch in batches:
            ids, places = batch["input_ids"][0].cpu(), batch["position_ids"][0].cpu()
            starts = (places == 0).nonzero().squeeze(1).tolist()
            sequences += [ids[a:b].numpy() for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
        empty = np.zeros((0, 2), np.int32)
        row = pack([Trajectory(f"{i}", ids, empty, np.zeros(0, bool), empty) for i, ids in enumerate(sequences)])
        policy = self.policy().to(self.device)
        with torch.no_grad():
            return float(policy.row_loss(row.to(self.device)).code) / row.trained_tokens


class LightningClock(Callback):
    """Notes time and loss of every optimizer step."""

    def __init__(self, run: Run):
        self.run = run
        self.parts: list[float] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.parts.append(float(trainer.callback_metrics["loss"]))
        if trainer.global_step > len(self.run.losses):
            self.run.tick()
            self.run.losses.append(statistics.mean(self.parts))
            self.parts = []


def trl_clock(run: Run) -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            run.tick()

    return Clock()


def peak_of(call: Callable[[], Any], device: str) -> float:
    """Peak memory in MiB beyond what was there before; on the CPU in a process of its own."""
    if device == "cuda":
        return peak_memory(call, device)
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=lambda: send.send(peak_memory(call)))
    child.start()
    peak = receive.recv()
    child.join()
    return peak


def measure(bench: Bench, report: Report, condition: str, step: Callable[[str], None]) -> None:
    """All arms on one model and one corpus."""
    options, figures, ratios = bench.options, report.figures, report.ratios
    lengths = [len(t.ids) for t in bench.snippets]
    groups = [lengths[at : at + options.padded_rows] for at in range(0, len(lengths), options.padded_rows)]
    padded = sum(max(group) * len(group) for group in groups)
    figures[f"tokens_per_snippet_{condition}"] = float(np.mean(lengths))
    figures[f"share_of_padding_{condition}"] = 1 - sum(lengths) / padded
    model = bench.hf_model()
    figures[f"parameters_{condition}"] = sum(p.numel() for p in model.parameters())
    flops_per_token = 3 * forward_flops(model, lengths) / (sum(lengths) - len(lengths))
    del model
    for arm in options.arms if not options.quick else ():
        step(f"  {arm}: peak memory")
        figures[f"{arm}_peak_mib_{condition}"] = peak_of(partial(bench.train, arm, 1), options.device)
    runs: dict[str, list[Run]] = {arm: [] for arm in options.arms}
    for number in range(options.rounds):
        for arm in options.arms:
            step(f"  {arm}: round {number + 1} of {options.rounds}")
            runs[arm].append(bench.train(arm))
    seconds: dict[str, float] = {}
    name = torch.cuda.get_device_name() if options.device == "cuda" else ""
    peak = peak_flops(name, options.peak_tflops)
    for arm, done in runs.items():
        assert len(done[0].tokens) == len(done[0].wall)
        tokens = sum(done[0].tokens[1:])
        cpu, wall = (statistics.median(clock(run) for run in done) for clock in (cpu_seconds, wall_seconds))
        figures[f"{arm}_tokens_per_cpu_s_{condition}"] = tokens / cpu
        figures[f"{arm}_tokens_per_wall_s_{condition}"] = tokens / wall
        seconds[arm] = (cpu if options.device == "cpu" else wall) / tokens
        if peak is not None:
            figures[f"{arm}_mfu_{condition}"] = flops_per_token * tokens / wall / peak
    check_losses(bench, runs, report, condition)
    for ours, theirs in PAIRS:
        if ours in seconds and theirs in seconds:
            ratios[f"{ours}_vs_{theirs}_{condition}"] = seconds[theirs] / seconds[ours]


def profile(bench: Bench) -> str:
    """Shares of the CPU time of one step of ours: matrix products, attention, and the costliest of the rest."""
    policy = bench.policy()
    optimizer = policy.configure_optimizers()

    def step(batch: StepBatch) -> None:
        optimizer.zero_grad()
        for row in batch.micro:
            (policy.row_loss(row).code / batch.world_trained_tokens).backward()
        clip_gradients(optimizer, ADAMW.clip)
        optimizer.step()

    first, second, *_ = PackedSteps(bench.groups(), bench.options.tokens_per_forward)
    step(first)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as watched:
        step(second)
    times: dict[str, float] = {}
    for event in watched.key_averages():
        name = event.key.removeprefix("aten::").rstrip("_")
        kind = "attention" if "attention" in name else "matrix products" if name in ("mm", "addmm", "bmm") else name
        times[kind] = times.get(kind, 0.0) + event.self_cpu_time_total
    shares = sorted(times.items(), key=lambda item: -item[1])[:8]
    return "\n".join(f"{share / sum(times.values()):6.1%}  {name}" for name, share in shares)


PAIRS = [
    ("ours", "trl_padded"),
    ("ours_unpacked", "trl_unpacked"),
    ("ours", "trl_packed"),
    ("ours", "trl_wrapped"),
    ("ours", "hf_padded"),
]


def cpu_seconds(run: Run) -> float:
    return run.cpu[-1] - run.cpu[0]


def wall_seconds(run: Run) -> float:
    return run.wall[-1] - run.wall[0]


def check_losses(bench: Bench, runs: dict[str, list[Run]], report: Report, condition: str) -> None:
    """Matched arms have the same losses; a benchmark of something else must not be reported."""
    limit = 1e-4 if bench.device == "cpu" else 2e-2  # bfloat16 on accelerators
    ours = runs["ours"][0].losses if "ours" in runs else None
    for arm, done in runs.items():
        losses = done[0].losses
        if arm in SAME_STEPS and ours is not None:
            first, all_steps = abs(losses[0] - ours[0]), max(abs(np.subtract(losses, ours)))
            report.figures[f"{arm}_loss_difference_over_all_steps_{condition}"] = float(all_steps)
        elif arm == "trl_packed":
            first = abs(losses[0] - bench.loss_of_first_trl_step(arm))
        else:
            continue
        report.figures[f"{arm}_loss_difference_at_first_step_{condition}"] = first
        if not first <= limit:
            raise SystemExit(f"{arm}: the loss of the first step is {losses[0]}, {first} away from ours; not matched")


def main() -> None:
    options = parse()
    if any(arm.startswith("trl") for arm in options.arms) and versions(["trl"])["trl"] == "-":
        raise SystemExit("TRL is not installed: pip install -e '.[bench]', or leave it out with --arms ours hf_padded")
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "transformers", "datasets", "trl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore")
    began = time.perf_counter()

    def step(text: str) -> None:
        print(f"{time.perf_counter() - began:6.1f} s  {text}", flush=True)

    packages = ["torch", "transformers", "lightning", "trl", "accelerate", "datasets", "numpy"]
    report = Report("mstep", options.seed, packages, options.device)
    for data in options.data:
        for model in options.models:
            corpus = Path(data).parent.name if "*" in data else data.replace(":", "_")
            step(f"{model} on {data}")
            if options.profile:
                print(profile(Bench(options, model, data)))
                continue
            measure(Bench(options, model, data), report, f"{model}_{corpus}", step)
    if options.profile:
        return
    report.figures["whole_run_s"] = time.perf_counter() - began
    report.finish(options.out)


if __name__ == "__main__":
    main()
