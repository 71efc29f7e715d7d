"""The rollout engine against plain transformers and against the floor, on real Python lines.

    python benchmarks/rollout.py [--quick] [--device cpu|cuda] [--config NAME] [--lines 20 40] [--think 0.1 0.4 1.0]

- naive: `ra3kit.testing.naive`: rows in lock step, `generate` with its own cache for each latent, one scoring forward
  for each line. The same snippets as the engine's, the same batch width, and the same thoughts, token for token, but
  one batch of rows where the engine has several (in lock step the rate does not depend on their number). The snippets
  are about equally long, so that lock step wastes little.
- floor: one packed scoring forward of the finished sequences: nobody can know their log-probabilities for less.
- engine (q = pi): rewards are read off the sampling pass. engine + pi: a separate frozen pi scores what q sampled.

One thread on the CPU, CPU seconds of the process, medians of interleaved repeats; on CUDA wall seconds.
The model is a Qwen2 at random weights whose head is biased so that it thinks as often as asked: a small one in float32
on the CPU, the architecture of Qwen2.5-1.5B in bfloat16 on CUDA. MFU as in `models.py`, where the peak is known.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Report, Seconds, default_out, interleaved, peak_memory
from models import COMMON, CONFIGS, forward_flops, peak_flops
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ra3kit.data.snippets import Corpus
from ra3kit.data.tokenizer import TrainedTokenizer
from ra3kit.data.trajectory import Trajectory
from ra3kit.latents import ThoughtRules
from ra3kit.policy import score
from ra3kit.rollout import Engine, Rollout
from ra3kit.testing.models import tiny_model
from ra3kit.testing.naive import naive_rollout
from ra3kit.testing.thinking import set_thinking, thought_lengths

MAX_THOUGHT, MEAN_THOUGHT = 8, 5.0
SCALE = 2.0
"""Factor on the random matrices: distributions are far from uniform, so that mistakes would show."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small version in under a minute; writes no file")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--config", choices=list(CONFIGS), help="of the model; default engine, on cuda qwen2.5-1.5b")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default float32, on cuda bfloat16")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for MFU; known for common cards")
    parser.add_argument("--lines", type=int, nargs="+", default=[20, 40])
    parser.add_argument("--think", type=float, nargs="+", default=[0.1, 0.4, 1.0], help="share of lines, in (0, 1]")
    parser.add_argument("--slots", type=int, default=32, help="batch width of engine and naive")
    parser.add_argument("--snippets", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=8, help="of each snippet")
    parser.add_argument("--repeats", type=int, default=5, help="of engine and floor; naive runs once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="results file; default benchmarks/results/rollout.json")
    options = parser.parse_args()
    if options.quick:
        options.lines, options.think, options.snippets, options.repeats = [10], [0.4], 4, 2
    on_cuda = options.device == "cuda"
    options.config = options.config or ("qwen2.5-1.5b" if on_cuda else "engine")
    options.dtype = options.dtype or ("bfloat16" if on_cuda else "float32")
    options.out = options.out or default_out("rollout", options.quick)
    return options


class Bench:
    """One machine, one model, one set of snippets."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.device = options, options.device
        self.tokenizer: PreTrainedTokenizerBase = TrainedTokenizer(vocab_size=2048).load()
        self.longest = 40 if options.quick else 80
        self.snippets = python_snippets(self.tokenizer, max(self.longest, *options.lines), options.snippets)
        packages = ["torch", "transformers", "tokenizers", "numpy"]
        self.report = Report("rollout", options.seed, packages, self.device)

    def cut(self, lines: int) -> list[Trajectory]:
        """The first lines of every snippet."""
        return [first_lines(snippet, lines) for snippet in self.snippets]

    def model(self, think: float) -> tuple[PreTrainedModel, ThoughtRules]:
        """A model for the engine that thinks at this share of the lines, and its rules."""
        rules = ThoughtRules(MAX_THOUGHT, "always" if think == 1 else "free")
        settings: Any = {**COMMON, **CONFIGS[self.options.config]}
        model = tiny_model(seed=self.options.seed, scale=SCALE, **settings).requires_grad_(False)
        where: Any = (self.device, getattr(torch, self.options.dtype))
        model = model.to(*where)
        set_thinking(model, self.tokenizer, self.cut(20), think, MEAN_THOUGHT, rules)
        return model, rules

    def engine(self, model: PreTrainedModel, slots: int | None = None, padded: bool | None = None) -> Engine:
        return Engine(model, self.tokenizer, slots or self.options.slots, capacity=4096, padded_chunks=padded)

    def roll(
        self, engine: Engine, snippets: Sequence[Trajectory], rules: ThoughtRules, k: int | None = None
    ) -> list[Rollout]:
        rows = engine.rollout(snippets, k or self.options.rollouts, self.options.seed, rules)
        return [row for group in rows for row in group]

    def seconds(self, timed: Seconds) -> float:
        return timed.cpu if self.device == "cpu" else timed.wall

    # ---- what is measured -----------------------------------------------------------------------------------------

    def against_naive_and_floor(self, lines: int, think: float, model: PreTrainedModel, rules: ThoughtRules) -> None:
        condition = f"{lines}lines_{round(think * 100)}think"
        snippets, engine, reference = self.cut(lines), self.engine(model), with_sdpa(model)
        rows = self.roll(engine, snippets, rules)
        trajectories = [row.trajectory for row in rows]
        packed = self.fastest_floor(model, trajectories)
        calls: dict[str, Callable[[], Any]] = {
            "engine": partial(self.roll, engine, snippets, rules),
            "floor": partial(score, model, trajectories, packed),
        }
        timed = interleaved(calls, self.options.repeats, self.device)
        plain: list[Rollout] = []
        peak: dict[str, float] = {
            "engine": peak_memory(lambda: self.roll(self.engine(model), snippets, rules), self.device)
        }

        def naive() -> None:
            k = max(1, self.options.slots // len(snippets))
            groups = naive_rollout(reference, self.tokenizer, snippets, k, self.options.seed, rules, self.options.slots)
            plain.extend(row for group in groups for row in group)

        def naive_watched() -> None:
            peak["naive"] = peak_memory(naive, self.device)

        timed |= interleaved({"naive": naive_watched}, 1, self.device)
        ours = {(row.trajectory.snippet_id, row.rollout): row for row in rows}
        pairs = [(ours[row.trajectory.snippet_id, row.rollout], row) for row in plain]
        engine_s, floor_s = (self.seconds(timed[name]) for name in ("engine", "floor"))
        naive_s = self.seconds(timed["naive"]) * len(rows) / len(plain)
        lengths = thought_lengths(rows)
        figures, ratios = self.report.figures, self.report.ratios
        figures[f"think_rate_{condition}"] = len(lengths) / sum(int(row.decided.sum()) for row in rows)
        figures[f"thought_tokens_{condition}"] = float(lengths.mean())
        figures[f"tokens_per_trajectory_{condition}"] = float(np.mean([len(t.ids) for t in trajectories]))
        figures[f"engine_trajectories_per_s_{condition}"] = len(rows) / engine_s
        figures[f"naive_trajectories_per_s_{condition}"] = len(rows) / naive_s
        figures[f"floor_trajectories_per_s_{condition}"] = len(rows) / floor_s
        figures[f"engine_wall_s_{condition}"] = timed["engine"].wall
        sizes = [len(t.ids) for t in trajectories]
        peak_rate = peak_flops(torch.cuda.get_device_name() if self.device == "cuda" else "", self.options.peak_tflops)
        for name in ("engine", "floor"):
            figures[f"{name}_tokens_per_s_{condition}"] = sum(sizes) / self.seconds(timed[name])
            if peak_rate is not None:
                figures[f"{name}_mfu_{condition}"] = forward_flops(model, sizes) / timed[name].wall / peak_rate
        for name, mib in peak.items():
            figures[f"{name}_peak_mib_{condition}"] = mib
        figures[f"same_tokens_as_naive_{condition}"] = share_of_same_tokens(pairs)
        figures[f"logp_error_vs_reforward_{condition}"] = logp_error(rows, score(model, trajectories, packed))
        ratios[f"engine_vs_naive_{condition}"] = naive_s / engine_s
        ratios[f"engine_cost_vs_floor_q_is_pi_{condition}"] = engine_s / floor_s
        ratios[f"engine_cost_vs_floor_separate_pi_{condition}"] = (engine_s + floor_s) / floor_s

    def fastest_floor(self, model: PreTrainedModel, trajectories: Sequence[Trajectory]) -> int:
        """Tokens in a forward that score fastest."""
        sizes = [1024, 2048, 4096] if self.device == "cpu" else [4096, 16384, 65536]
        calls = {str(size): partial(score, model, trajectories, size) for size in sizes}
        timed = interleaved(calls, 2, self.device)
        return int(min(timed, key=lambda size: self.seconds(timed[size])))

    def growth(self, model: PreTrainedModel, rules: ThoughtRules) -> None:
        """Exponents of the engine's and the floor's cost in tokens, at a fixed number of rows."""
        sizes = [n for n in (10, 20, 40, 80) if n <= self.longest]
        engine = self.engine(model)
        done = {n: [row.trajectory for row in self.roll(engine, self.cut(n), rules)] for n in sizes}
        tokens = [sum(len(trajectory.ids) for trajectory in done[n]) for n in sizes]
        calls: dict[str, Callable[[], Any]] = {}
        for n in sizes:
            calls[f"engine_{n}"] = partial(self.roll, engine, self.cut(n), rules)
            calls[f"floor_{n}"] = partial(score, model, done[n], 2048)
        timed = interleaved(calls, min(3, self.options.repeats), self.device)
        for what in ("engine", "floor"):
            costs = [self.seconds(timed[f"{what}_{n}"]) for n in sizes]
            for n, count, cost in zip(sizes, tokens, costs, strict=True):
                self.report.figures[f"{what}_us_per_token_{n}lines"] = cost / count * 1e6
            exponent = np.polyfit(np.log(tokens), np.log(costs), 1)[0]
            self.report.figures[f"{what}_cost_exponent_in_tokens_{sizes[0]}_to_{sizes[-1]}lines"] = float(exponent)

    def widths(self, model: PreTrainedModel, rules: ThoughtRules) -> None:
        """Are draws the same at any batch width, and however attention is batched, in float32 and in bfloat16?

        In bfloat16 the sums of a padded attention batch come out otherwise, and so do some draws.
        """
        snippets = self.cut(min(self.options.lines))
        for name, weights in {
            "float32": copy.deepcopy(model).float(),
            "bfloat16": copy.deepcopy(model).bfloat16(),
        }.items():
            wide = self.roll(self.engine(weights), snippets, rules, k=4)
            others = {f"{slots}_vs_{self.options.slots}slots": self.engine(weights, slots) for slots in (1, 7)}
            others["padded_vs_row_attention"] = self.engine(weights, padded=self.device == "cpu")
            for what, engine in others.items():
                other = self.roll(engine, snippets, rules, k=4)
                pairs = list(zip(wide, other, strict=True))
                condition = f"{name}_{what}"
                self.report.figures[f"same_trajectories_{condition}"] = share_of_same_tokens(pairs)
                self.report.figures[f"flip_rate_of_draws_{condition}"] = flip_rate(pairs)
                self.report.figures[f"logp_difference_rms_{condition}"] = logp_noise(pairs)


def python_snippets(tokenizer: PreTrainedTokenizerBase, lines: int, count: int) -> list[Trajectory]:
    """Snippets of the standard library with at least so many lines: of many, those of the most usual length.

    Their first 10 to `lines` lines are used, so length is that of the first `lines` lines.
    """
    corpus = Corpus("stdlib", comments="strip", max_tokens=lines * 22, max_lines=2 * lines, min_lines=lines)
    found = [snippet.trajectory for snippet in islice(corpus.snippets(tokenizer), 6 * count)]
    if len(found) < count:
        raise SystemExit(f"the standard library gave only {len(found)} snippets of {lines} lines; {count} are needed")
    lengths = [int(trajectory.lines[lines - 1, 1]) for trajectory in found]
    order = np.argsort(np.abs(np.asarray(lengths) - np.median(lengths)), kind="stable")
    return [found[i] for i in order[:count]]


def first_lines(trajectory: Trajectory, lines: int) -> Trajectory:
    start, end = int(trajectory.ids[0]), int(trajectory.ids[-1])
    ids = [trajectory.line_ids(t) for t in range(lines)]
    return Trajectory.from_lines(trajectory.snippet_id, ids, trajectory.may_think[:lines].tolist(), start, end)


def with_sdpa(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights under Hugging Face's own attention and cache."""
    config = copy.deepcopy(model.config)
    config.use_cache = True
    reference = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=model.dtype)
    reference.get_output_embeddings().bias = torch.nn.Parameter(torch.zeros(config.vocab_size, dtype=model.dtype))
    reference.load_state_dict(model.state_dict())
    device: Any = model.device
    return reference.requires_grad_(False).eval().to(device)


def share_of_same_tokens(pairs: Sequence[tuple[Rollout, Rollout]]) -> float:
    return float(np.mean([a.trajectory.ids.tolist() == b.trajectory.ids.tolist() for a, b in pairs]))


def logp_error(rows: Sequence[Rollout], scores: Sequence[np.ndarray]) -> float:
    """Largest difference in nats."""
    return float(max(abs(row.token_logp - values).max() for row, values in zip(rows, scores, strict=True)))


def draws(rollout: Rollout) -> list[int]:
    """What was drawn, in order: -1 for `<act>`, the ids of a thought."""
    out: list[int] = []
    for line in np.flatnonzero(rollout.decided).tolist():
        out += rollout.trajectory.thought_ids(line) or [-1]
    return out


def flip_rate(pairs: Sequence[tuple[Rollout, Rollout]]) -> float:
    """Share of draws that come out otherwise, counted up to the first in each trajectory: later ones see other text."""
    flips = total = 0
    for a, b in pairs:
        ours, theirs = draws(a), draws(b)
        first = next((i for i, (x, y) in enumerate(zip(ours, theirs, strict=False)) if x != y), None)
        flips += first is not None
        total += len(ours) if first is None else first + 1
    return flips / total


def logp_noise(pairs: Sequence[tuple[Rollout, Rollout]]) -> float:
    """Root mean square difference of token log-probabilities in nats, over trajectories that came out the same."""
    same = [
        a.token_logp - b.token_logp
        for a, b in pairs
        if a.token_logp is not None and b.token_logp is not None and len(a.token_logp) == len(b.token_logp)
        if a.trajectory.ids.tolist() == b.trajectory.ids.tolist()
    ]
    return float(np.sqrt(np.mean(np.concatenate(same) ** 2))) if same else float("nan")


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    began = time.perf_counter()
    bench = Bench(options)

    def step(text: str) -> None:
        print(f"{time.perf_counter() - began:6.1f} s  {text}", flush=True)

    middle = min(options.think, key=lambda think: abs(think - 0.4))
    for think in options.think:
        step(f"a model that thinks at {think:.0%} of the lines")
        model, rules = bench.model(think)
        for lines in options.lines:
            step(f"  {lines} lines: engine, floor, naive")
            bench.against_naive_and_floor(lines, think, model, rules)
        if think == middle:
            step("  growth with tokens, batch widths")
            bench.growth(model, rules)
            bench.widths(model, rules)
    bench.report.figures["whole_run_s"] = time.perf_counter() - began
    bench.report.finish(options.out)


if __name__ == "__main__":
    main()
