"""A GRPO step against TRL's GRPOTrainer: the same model, prompts, reward, number of samples and longest answer.

    pip install -e '.[bench]'
    python benchmarks/grpo.py [--quick] [--models tiny small] [--conditions longtail full verified]

First the same samples go through both sides, and gradients and weights are compared (`grpo_equal.py`); a difference
beyond rounding ends the benchmark. Then steps are timed, as a whole with sampling, and training alone on given samples
(of the same model, the same for all arms, the training of ours being checked against TRL's).

- ours: `GRPOModule` in a Lightning Trainer, float32; ours_bf16: in bfloat16 autocast; ours_ahead: with `staleness=1`
- trl_default: GRPOConfig as it comes: bfloat16 autocast, gradient checkpointing, 8 rows a forward
- trl: float32 like ours, without gradient checkpointing, 8 rows a forward: as fast here as 4 or 16, faster than all at
  once; trl_bf16: that in bfloat16 autocast. Of its other ways to sample, a static cache makes hardly a difference on a
  CPU, continuous batching is slower than `generate`, vLLM needs an accelerator.

Conditions:

- longtail: a Qwen2 at random weights, its head biased so that an answer ends after each token with probability
  1 / mean: lengths are geometric, cut at the longest allowed
- full: no answer ends before the longest allowed, so that nobody wins by not waiting
- verified: as longtail, and programs (by lot from a few for one problem, right and wrong) are run by our verifier: TRL
  calls it as its reward function, after sampling; ours judges beside it. Wall seconds: verdicts come from other
  processes

One thread; CPU seconds of the process, medians over the timed steps of interleaved rounds. In all arms freed memory
stays with the process: by default glibc hands large blocks back and has them cleared anew, which makes the training on
padded batches a fifth slower and that on packed rows hardly.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import datasets
import numpy as np
import torch
from common import Report, default_out, table, versions
from models import COMMON, CONFIGS
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ra3kit.data.snippets import Corpus
from ra3kit.data.tokenizer import TrainedTokenizer
from ra3kit.optimize import Optimization
from ra3kit.policy import BasePolicy
from ra3kit.rlvr.judge import Judge
from ra3kit.rlvr.tasks import Task
from ra3kit.rollout import Engine
from ra3kit.verify.problem import Calls, Problem

if versions(["trl"])["trl"] == "-":
    raise SystemExit("TRL is not installed: pip install -e '.[bench]'")

import grpo_equal
import grpo_peer
import grpo_steps
from grpo_steps import Outcome, Told, passes

CONDITIONS = ["longtail", "full", "verified"]
TRL: dict[str, dict[str, Any]] = {
    "trl": {"bf16": False, "gradient_checkpointing": False},
    "trl_bf16": {"bf16": True, "gradient_checkpointing": False},
    "trl_default": {},
}
OURS = ["ours", "ours_bf16", "ours_ahead"]
ARMS = [*OURS, *TRL]
PROMPT_LINES = 6
LIMIT = 1e-4
"""Most that a gradient of ours may differ from TRL's, as a share of the largest entry."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small version in under a minute; writes no file")
    parser.add_argument("--models", nargs="+", choices=list(CONFIGS), default=["tiny"])
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="those that make sense are taken")
    parser.add_argument("--prompts", type=int, default=8, help="of a step")
    parser.add_argument("--group", type=int, default=8, help="answers to each prompt")
    parser.add_argument("--mean-tokens", type=float, default=80, help="of an answer, were none cut")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--rows", type=int, default=8, help="answers of one forward of TRL's; 8 as it comes")
    parser.add_argument("--slots", type=int, default=64, help="of our engine")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a round, after one that is not")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="results file; default benchmarks/results/grpo.json")
    options = parser.parse_args()
    if options.quick:
        options.models, options.conditions, options.steps, options.rounds = options.models[:1], ["longtail"], 1, 1
        options.prompts, options.max_new_tokens, options.mean_tokens = 2, 96, 30
        options.arms = [arm for arm in options.arms if arm in ("ours", "trl")]
    options.out = options.out or default_out("grpo", options.quick)
    return options


SLOW = "def squares(n):\n    total = 0\n    for i in range(n + 1):\n        total += i * i\n    return total\n"
PROGRAMS = [
    SLOW,
    "def squares(n):\n    return sum(i * i for i in range(n + 1))\n",
    "def squares(n):\n    return n * (n + 1) * (2 * n + 1) // 6\n",
    SLOW.replace("n + 1", "n"),
    SLOW.replace("i * i", "i ** 3"),
    SLOW.replace("    return total", "        return total"),
    "def squares(n):\n    return sum(i * i for i in range(n + 1)\n",
    "def squares(n):\n    return squares(n - 1) + n * n\n",
]
"""What answers are taken for where programs are run: three that are right, five that are wrong in ways of their own."""
SIZES = [0, 1, 2, 10, 100, 1000, 5000, 20_000, 50_000]
SQUARES = Problem("squares", Calls("squares", [[n] for n in SIZES], [n * (n + 1) * (2 * n + 1) // 6 for n in SIZES]))


def drawn(text: str) -> str:
    """The program that a text is taken for: always the same one, with a comment that keeps it from being remembered."""
    number = crc32(text.encode())
    return f"{PROGRAMS[number % len(PROGRAMS)]}# {number}\n"


class Drawn(Task):
    """A task whose answers are taken for programs by lot."""

    def program(self, text: str) -> str:
        return drawn(text)


class Bench:
    """One model under one condition."""

    def __init__(self, options: argparse.Namespace, model: str, condition: str):
        self.options, self.condition = options, condition
        config = {**COMMON, **CONFIGS[model]}
        self.config = {"model_type": "qwen2", **config}
        self.spec = TrainedTokenizer(vocab_size=min(config["vocab_size"], 8192))
        self.tokenizer: PreTrainedTokenizerBase = self.spec.load()
        self.prompts = self._prompts()
        self.optimization = Optimization(
            lr=1e-6, weight_decay=0.0, betas=(0.9, 0.999), warmup=0.0, schedule="constant", clip=1.0
        )
        torch.manual_seed(options.seed)
        self.weights = {name: value.clone() for name, value in self.plain_model().state_dict().items()}

    def _prompts(self) -> list[str]:
        """First lines of files' functions, other ones for each step."""
        wanted = self.options.prompts * (self.options.steps + 1)
        corpus = Corpus("stdlib:expert", comments="strip", max_tokens=400, max_lines=64)
        found = []
        for snippet in islice(corpus.snippets(self.tokenizer), max(200, 2 * wanted)):
            lines = str(self.tokenizer.decode(snippet.trajectory.ids, skip_special_tokens=True)).splitlines(
                keepends=True
            )
            found.append("".join(lines[:PROMPT_LINES]))
        return [found[i] for i in np.random.default_rng(self.options.seed).permutation(len(found))[:wanted]]

    # ---- models ---------------------------------------------------------------------------------------------------

    def bias(self) -> torch.Tensor:
        """Of the head: at random weights all tokens are about equally likely, so the end's share is 1 / mean."""
        bias, end = torch.zeros(self.config["vocab_size"]), self.tokenizer.eos_token_id
        bias[end] = -1e4 if self.condition == "full" else math.log(len(bias) / self.options.mean_tokens)
        return bias

    def plain_model(self) -> PreTrainedModel:
        """As anybody builds it."""
        config = AutoConfig.for_model(**{**self.config, "use_cache": True})
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
        return self._biased(model)

    def policy(self) -> BasePolicy:
        policy = BasePolicy(config=self.config, tokenizer=self.spec, optimization=self.optimization)
        self._biased(policy.model)
        return policy

    def _biased(self, model: Any) -> Any:
        model.get_output_embeddings().bias = torch.nn.Parameter(self.bias())
        if hasattr(self, "weights"):
            model.load_state_dict(self.weights)
        return model

    # ---- training -------------------------------------------------------------------------------------------------

    def tasks(self, steps: int) -> list[list[Task]]:
        """Of each step."""
        if self.condition == "verified":
            ids = [self.tokenizer(text)["input_ids"] for text in self.prompts]
            all_of_them: list[Task] = [
                Drawn(Problem(f"{i}", SQUARES.tests, prompt=text), own, ())
                for i, (text, own) in enumerate(zip(self.prompts, ids, strict=True))
            ]
        else:
            all_of_them = grpo_steps.whole_text_tasks(self.prompts, self.tokenizer)
        n = self.options.prompts
        return [all_of_them[at : at + n] for at in range(0, n * steps, n)]

    def train(
        self, arm: str, steps: int, given: Sequence[Sequence[int]] | None = None, keep: bool = False, number: int = 0
    ) -> Outcome:
        """Train an arm from the start; `number` is that of the round, in each of which other samples are drawn."""
        judge = Judge().open() if self.condition == "verified" else None
        train = self._trl if arm in TRL else self._ours
        try:
            with tempfile.TemporaryDirectory() as folder:
                seed = self.options.seed + number
                return train(arm, steps, judge, folder=Path(folder), given=given, keep=keep, seed=seed)
        finally:
            if judge is not None:
                judge.close()

    def _ours(self, arm: str, steps: int, judge: Judge | None, **run: Any) -> Outcome:
        options = self.options
        return grpo_steps.train(
            self.policy(),
            self.tasks(steps),
            judge=judge or Told(),
            slots=options.slots,
            group_size=options.group,
            max_new_tokens=options.max_new_tokens,
            mask_truncated=False,  # as TRL's default
            clip_high=0.2,
            importance_cap=None if run["given"] is not None else 2.0,  # nobody knows what drew given samples
            staleness=int(arm == "ours_ahead"),
            precision="bf16-mixed" if arm == "ours_bf16" else "32-true",
            **run,
        )

    def _trl(self, arm: str, steps: int, judge: Judge | None, **run: Any) -> Outcome:
        options = self.options

        def rewards(prompts: Sequence[str], texts: Sequence[str]) -> list[float | None]:
            if judge is None:
                return [float(passes(text)) for text in texts]
            verdicts = judge.wait([(judge.submit(drawn(text), SQUARES), SQUARES) for text in texts])
            return [float(verdict.status == "pass") for verdict in verdicts]

        return grpo_peer.train(
            self.plain_model(),
            self.tokenizer,
            self.prompts[: options.prompts * steps],
            rewards,
            num_generations=options.group,
            max_completion_length=options.max_new_tokens,
            per_device_train_batch_size=options.rows,
            gradient_accumulation_steps=options.prompts * options.group // options.rows,
            learning_rate=self.optimization.lr,
            scale_rewards="none",
            **TRL[arm],
            **run,
        )

    def given(self, steps: int) -> list[list[int]]:
        """Samples of the model at its first weights, for all arms the same."""
        engine = Engine(self.policy().model, self.tokenizer, self.options.slots, COMMON["max_position_embeddings"])
        prompts = [task.prompt for tasks in self.tasks(steps) for task in tasks]
        groups = engine.generate(prompts, self.options.group, self.options.seed, self.options.max_new_tokens)
        return [completion.ids for group in groups for completion in group]


def measure(bench: Bench, report: Report, name: str, step: Callable[[str], None]) -> None:
    """All arms that make sense under the condition: whole steps, and training alone."""
    options, steps = bench.options, bench.options.steps + 1
    verified = bench.condition == "verified"
    arms = [arm for arm in options.arms if verified or arm != "ours_ahead"]
    arms = [arm for arm in arms if bench.condition == "longtail" or not arm.endswith("bf16")]
    runs: dict[str, list[Outcome]] = {arm: [] for arm in arms}
    for number in range(options.rounds):
        for arm in arms:
            step(f"  {arm}: round {number + 1} of {options.rounds}")
            runs[arm].append(bench.train(arm, steps, number=number))
    seconds = whole_steps(runs, report, name, wall=verified)
    compare(seconds, report, name)
    if not verified:
        training_alone(bench, arms, report, name, step)


def compare(seconds: dict[str, float], report: Report, name: str, what: str = "") -> None:
    """The ratios of every arm of ours and every one of TRL's."""
    for ours in OURS:
        for peer in TRL:
            if ours in seconds and peer in seconds:
                report.ratios[f"{ours}{what}_vs_{peer}_{name}"] = seconds[peer] / seconds[ours]


def whole_steps(runs: dict[str, list[Outcome]], report: Report, name: str, wall: bool) -> dict[str, float]:
    """Figures of whole steps; the seconds a step that arms are compared by."""
    figures, seconds = report.figures, {}
    for arm, outcomes in runs.items():
        ticks = [outcome.ticks for outcome in outcomes]
        sampled = [n for tick in ticks for n in np.diff(tick.tokens)]
        figures[f"{arm}_sampled_tokens_per_step_{name}"] = float(np.mean(sampled)) if sampled else float("nan")
        for clock in ("wall",) if wall else ("cpu", "wall"):
            whole = [s for tick in ticks for s in np.diff(getattr(tick, clock))]
            sampling = [s for tick in ticks for s in np.diff(getattr(tick, f"sampling_{clock}"))]
            figures[f"{arm}_step_{clock}_s_{name}"] = statistics.median(whole)
            figures[f"{arm}_sampling_{clock}_s_{name}"] = statistics.median(sampling)
            figures[f"{arm}_rest_{clock}_s_{name}"] = statistics.median(np.subtract(whole, sampling))
        seconds[arm] = figures[f"{arm}_step_{'wall' if wall else 'cpu'}_s_{name}"]
    return seconds


def training_alone(bench: Bench, arms: Sequence[str], report: Report, name: str, step: Callable[[str], None]) -> None:
    """Steps on given samples: reward, loss, gradient, optimizer; the first gradients are compared."""
    options, steps = bench.options, bench.options.steps + 1
    given = bench.given(steps)
    lengths = [len(ids) for ids in given]
    report.figures[f"tokens_per_answer_{name}"] = float(np.mean(lengths))
    report.figures[f"share_cut_{name}"] = float(np.mean([n == options.max_new_tokens for n in lengths]))
    timed: dict[str, list[float]] = {arm: [] for arm in arms}
    for number in range(options.rounds):
        for arm in arms:
            step(f"  {arm}, given samples: round {number + 1} of {options.rounds}")
            timed[arm] += np.diff(bench.train(arm, steps, given).ticks.cpu).tolist()
    for arm in arms:
        report.figures[f"{arm}_training_cpu_s_{name}"] = statistics.median(timed[arm])
    compare({arm: statistics.median(times) for arm, times in timed.items()}, report, name, "_training")
    if "ours" in arms and "trl" in arms:
        n = options.prompts * options.group
        ours, trl = (bench.train(arm, 1, given[:n], keep=True).gradients[0] for arm in ("ours", "trl"))
        apart = max(float((ours[key] - trl[key]).abs().max()) for key in trl)
        apart /= max(float(value.abs().max()) for value in trl.values())
        report.figures[f"gradient_difference_{name}"] = apart
        if not apart <= LIMIT:
            raise SystemExit(f"{name}: the first gradient is {apart} of the largest entry away from TRL's; not matched")


def keep_freed_memory() -> None:
    """Tell glibc to map no block apart and never to give the heap's end back; elsewhere nothing happens."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mmap_max, trim_threshold = -4, -1
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def equality(report: Report) -> None:
    """Print and check how far ours and TRL's are apart on the same samples."""
    rows = [["same samples", "gradient", "weight", "weight, rms"]]
    for name in grpo_equal.SCENARIOS:
        found = grpo_equal.compare(name)
        rows.append([name, *(f"{x:.1e}" for x in (found.gradient, found.weight, found.weight_rms))])
        report.figures[f"gradient_difference_{name}"] = found.gradient
        report.figures[f"weight_difference_{name}"] = found.weight
        report.figures[f"weight_difference_rms_{name}"] = found.weight_rms
        if not found.gradient <= LIMIT:
            raise SystemExit(f"{name}: our gradient is {found.gradient} of the largest entry away from TRL's")
    print(table(rows))


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    keep_freed_memory()
    for name in ("lightning.pytorch", "transformers", "datasets", "trl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore")
    began = time.perf_counter()

    def step(text: str) -> None:
        print(f"{time.perf_counter() - began:6.1f} s  {text}", flush=True)

    packages = ["torch", "transformers", "lightning", "trl", "accelerate", "datasets", "numpy"]
    report = Report("grpo", options.seed, packages)
    equality(report)
    for model in options.models:
        for condition in options.conditions:
            step(f"{model}, {condition}")
            measure(Bench(options, model, condition), report, f"{model}_{condition}", step)
    report.figures["whole_run_s"] = time.perf_counter() - began
    report.finish(options.out)


if __name__ == "__main__":
    main()
