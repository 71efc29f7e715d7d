"""Which weights should q start each E-step from: pi, the last q, or the base?

One base is warmed up per seed; from it RA3 runs two EM iterations with each choice, on the same data (recipe tiny-ra3,
smaller, with a gentler E-step so that q still thinks). Reported per choice, as means over the seeds: held-out IWAE-8 of
pi minus that of the NTP control after the last M-step (nats per code token, negative is better than NTP), the mean
reward of the second E-step, the thought rate of q at the end, seconds.

    python benchmarks/posterior_start.py [--quick] [--seeds 0 1]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean

from common import Report, default_out

from ra3kit.cli import main as ra3kit

STARTS = ("pi", "last", "base")
E_STEPS = 8


def fit(overrides: list[str], recipe: str) -> None:
    """A run through the command line; stops the benchmark when it fails."""
    if ra3kit(["fit", "--recipe", recipe, *overrides]) != 0:
        raise SystemExit(f"ra3kit fit --recipe {recipe} {' '.join(overrides)} failed")


def base(folder: Path, seed: int, steps: int) -> Path:
    """A warmed-up base model: next-token prediction on the base half of the standard library with its comments."""
    settings = ["data.path=stdlib:base", f"trainer.max_steps={steps}", "trainer.limit_val_batches=0"]
    fit([f"run.dir={folder}", f"run.seed={seed}", "data.seed=0", *settings], "tiny-ntp")
    return folder / "model"


def ra3(folder: Path, seed: int, start: str, model: Path, snippets: int) -> dict[str, float]:
    """Two EM iterations from the base; what came of them."""
    settings = {
        "run.dir": folder,
        "run.seed": seed,
        "data.seed": 0,
        "model.policy.model": model,
        "model.policy.config": "null",
        "model.policy.tokenizer": "null",
        "model.posterior.start": start,
        "model.learner.optimization.lr": 5e-5,
        "data.max_snippets": snippets,
        "data.max_val_snippets": 16,
        "trainer.callbacks.0.warmup_steps": 0,
        "trainer.callbacks.0.e_steps": E_STEPS,
    }
    started = time.perf_counter()
    fit([f"{key}={value}" for key, value in settings.items()], "tiny-ra3")
    results = json.loads((folder / "results.json").read_text())
    last = results["scores"][-1]
    return {
        "ra3_minus_ntp_iwae": last["ra3_minus_ntp"]["iwae"]["mean"],
        "reward_second_e_step": mean(results["history"]["reward"][E_STEPS:]),
        "thought_rate_q": last["models"]["posterior"]["thought_rate"],
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, a few steps: under a minute")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    seeds, steps, snippets = (options.seeds[:1], 20, 40) if options.quick else (options.seeds, 150, 200)
    report = Report("posterior_start", seeds[0], ("torch", "transformers", "lightning"))
    rows: dict[str, list[dict[str, float]]] = {start: [] for start in STARTS}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeds:
            model = base(Path(temporary) / f"warm-{seed}", seed, steps)
            for start in STARTS:
                rows[start].append(ra3(Path(temporary) / f"{start}-{seed}", seed, start, model, snippets))
    for start, found in rows.items():
        for name in found[0]:
            report.figures[f"{name}_{start}"] = mean(row[name] for row in found)
            for seed, row in zip(seeds, found, strict=True):
                if name != "seconds":
                    report.figures[f"{name}_{start}_seed{seed}"] = row[name]
    report.finish(default_out("posterior_start", options.quick))


if __name__ == "__main__":
    main()
