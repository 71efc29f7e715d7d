"""Does GRPO raise the pass rate on problems it was not trained on? The recipe tiny-rlvr, over seeds.

A tiny base model (recipe tiny-base, or --base) is post-trained on the training tasks of the generated family, once for
each seed and each way of credit. Start and ends are then sampled on the family's test tasks, n answers at temperature
1, and compared with the paired test of `ra3kit compare`: problems resampled, seeds as runs of one arm.

    python benchmarks/tiny_rlvr.py [--quick] [--seeds 0 1 2] [--base FOLDER] [--out FOLDER]
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
from ra3kit.evaluation.compare import compare, read_evaluations

CREDITS = ("answer", "segment")


def command(*words: str) -> None:
    """A command of the kit; stops the benchmark when it fails."""
    print(" ".join(["ra3kit", *words]), flush=True)
    if ra3kit(list(words)) != 0:
        raise SystemExit("it failed")


def evaluated(model: Path, out: Path, seed: int, samples: int, tasks: int) -> Path:
    """pass@1 of a model on the test tasks, sampled."""
    settings = [f"n={samples}", "temperature=1", "max_new_tokens=160", f"seed={seed}", "split=test", f"limit={tasks}"]
    command("eval", "--model", str(model), "--benchmark", "family", "--out", str(out), *settings)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, a few steps: about a minute with --base")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--base", type=Path, help="the model to start from; default: made by the recipe tiny-base")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    options = parser.parse_args()
    seeds = options.seeds[:1] if options.quick else options.seeds
    samples, tasks = (2, 20) if options.quick else (8, 200)
    brief = ["trainer.max_steps=3", "data.prompts_per_step=4"] if options.quick else []
    report = Report("tiny_rlvr", seeds[0], ("torch", "transformers", "lightning"))
    with tempfile.TemporaryDirectory() as temporary:
        root = options.out or Path(temporary)
        base = options.base
        if base is None:
            steps = ["trainer.max_steps=60"] if options.quick else []
            command("fit", "--recipe", "tiny-base", f"run.dir={root / 'base'}", *steps)
            base = root / "base" / "model"
        starts = [evaluated(base, root / f"eval-start-{seed}", seed, samples, tasks) for seed in seeds]
        for credit in CREDITS[:1] if options.quick else CREDITS:
            ends, seconds, rewards = [], [], []
            for seed in seeds:
                run = root / f"{credit}-{seed}"
                settings = [
                    f"run.seed={seed}",
                    f"run.dir={run}",
                    f"model.policy.model={base}",
                    f"model.credit={credit}",
                ]
                started = time.perf_counter()
                command("fit", "--recipe", "tiny-rlvr", *settings, *brief)
                seconds.append(time.perf_counter() - started)
                rewards.append(json.loads((run / "results.json").read_text())["history"]["reward"])
                ends.append(evaluated(run / "model", root / f"eval-{credit}-{seed}", seed, samples, tasks))
            [found] = compare([read_evaluations(ends)], read_evaluations(starts))
            gain = found.scores["pass@1"]
            report.figures |= {
                f"pass@1_start_{credit}": gain.theirs,
                f"pass@1_end_{credit}": gain.ours,
                f"gain_{credit}": gain.value,
                f"gain_lo_{credit}": gain.lo,
                f"gain_hi_{credit}": gain.hi,
                f"gain_p_{credit}": gain.p,
                f"reward_first_steps_{credit}": mean(mean(curve[:4]) for curve in rewards),
                f"reward_last_steps_{credit}": mean(mean(curve[-4:]) for curve in rewards),
                f"seconds_a_run_{credit}": mean(seconds),
            }
            for seed, end in zip(seeds, ends, strict=True):
                report.figures[f"pass@1_end_{credit}_seed{seed}"] = json.loads((end / "results.json").read_text())[
                    "scores"
                ]["pass@1"]["value"]
    report.finish(default_out("tiny_rlvr", options.quick))


if __name__ == "__main__":
    main()
