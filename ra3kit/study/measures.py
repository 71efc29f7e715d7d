"""What is measured of an arm once it is trained: scores, bounds on held-out code, its thoughts, its cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ra3kit.abstraction.em import derive_seed, own_latents
from ra3kit.abstraction.evaluate import HeldOut, held_out
from ra3kit.abstraction.posterior import CausalPosterior
from ra3kit.actions import PythonLines
from ra3kit.data.encode import trajectory_from_text
from ra3kit.data.store import BootstrappedStore
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError
from ra3kit.policy import BasePolicy
from ra3kit.reports.curves import Curve, end_of, has_events, read_curves
from ra3kit.study.agreement import agreement, spans_of
from ra3kit.study.arms import ARMS
from ra3kit.study.family import Program, find_family
from ra3kit.study.regime import SLOTS, Regime
from ra3kit.study.statistics import curve_measures
from ra3kit.study.truth import Truth

HELD_OUT_SEED = 1
"""Of the draw of held-out programs; the training corpus is draw 0."""
SPARE = 4
"""So many times as many programs are drawn as are wanted, since some are in the training corpus too."""


@dataclass(frozen=True)
class Measure:
    """A number that an arm has.

    Args:
        title: for a table.
        path: where it stands in the result of an arm, keys with dots between.
        higher: whether more is better; None where neither is.
        percent: shown as such.
    """

    title: str
    path: str
    higher: bool | None = True
    percent: bool = False


MEASURES: dict[str, Measure] = {
    "pass@1": Measure("pass@1", "sampled.pass@1", percent=True),
    "pass@5": Measure("pass@5", "sampled.pass@5", percent=True),
    "greedy": Measure("greedy", "greedy.pass@1", percent=True),
    "compiling": Measure("programs that compile", "sampled.compiling", percent=True),
    "cut": Measure("answers cut at the token limit", "sampled.cut", False, True),
    "plain_line": Measure("code alone, nats/line", "held_out.plain_line", False),
    "own_line": Measure("own thoughts, nats/line", "held_out.own_line", False),
    "iwae_line": Measure("IWAE, nats/line", "held_out.iwae_line", False),
    "m_step": Measure("M-step, nats/code token", "m_step", False),
    "thought_rate": Measure("thought rate", "held_out.thought_rate", None, True),
    "thought_length": Measure("tokens of a thought", "held_out.thought_length", None),
    "nmi": Measure("NMI", "agreement.pi.nmi"),
    "precision": Measure("boundary precision", "agreement.pi.precision", True, True),
    "recall": Measure("boundary recall", "agreement.pi.recall", True, True),
    "named": Measure("thoughts that name the intent", "agreement.pi.named", True, True),
    "q_nmi": Measure("NMI", "agreement.q.nmi"),
    "q_precision": Measure("boundary precision", "agreement.q.precision", True, True),
    "q_recall": Measure("boundary recall", "agreement.q.recall", True, True),
    "q_named": Measure("thoughts that name the intent", "agreement.q.named", True, True),
    "cpu_seconds": Measure("CPU s", "cpu_seconds", False),
    "wall_seconds": Measure("wall s", "wall_seconds", False),
    "trained_tokens": Measure("trained tokens", "trained_tokens", None),
    "sampled_tokens": Measure("tokens of answers", "sampled_tokens", None),
    "area": Measure("area under the reward", "rlvr.area"),
    "reached": Measure("step to the threshold", "rlvr.reached", False),
    "asymptote": Measure("reward at the end", "rlvr.asymptote"),
}


def value_of(result: Mapping[str, Any], measure: str) -> float | None:
    """A measure in the result of an arm; None where it has none."""
    node: Any = result
    for key in MEASURES[measure].path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return float(node) if isinstance(node, int | float) and math.isfinite(node) else None


# --- held-out code ---------------------------------------------------------------------------------------------------


def corpus_name(regime: Regime, seed: int, programs: int, draw: int = 0) -> str:
    """The name of an expert corpus."""
    return f"{regime.family}:expert:n={programs}:world={seed}" + (f":seed={draw}" if draw else "")


def held_out_programs(regime: Regime, seed: int) -> list[Program]:
    """The first `regime.held_out` programs of another draw that are in no arm's training corpus.

    Raises:
        DataError: there are not so many.
    """
    largest = int(max(regime.programs, *(arm.sets.get("programs", 0) for arm in ARMS.values())))
    trained = {program.text for program in find_family(corpus_name(regime, seed, largest), ("expert",)).programs()}
    drawn = find_family(corpus_name(regime, seed, SPARE * regime.held_out, HELD_OUT_SEED), ("expert",)).programs()
    found: dict[str, Program] = {}
    for program in drawn:
        if program.text not in trained:
            found.setdefault(program.text, program)
    if len(found) < regime.held_out:
        raise DataError(f"held_out={regime.held_out}: only {len(found)} programs are not in the training corpus")
    return list(islice(found.values(), regime.held_out))


def measured(model: Path, programs: list[Program], regime: Regime, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Bounds of a model on programs in nats per token and per line, and the agreement of its own thoughts.

    The model is its own prior and draws its own thoughts, whatever arm it is of: one measure for all.
    """
    policy = BasePolicy(model=str(model))
    like = CausalPosterior(regime.max_length, slots=SLOTS, capacity=min(512, policy.max_positions or 512))
    q = own_latents(policy, like)
    for part in (policy.model, q.model):
        part.eval().requires_grad_(False)
    tokenizer: Any = policy.tokenizer
    snippets = [trajectory_from_text(tokenizer, f"{p.name}#0", p.text, PythonLines()) for p in programs]
    found = held_out(q, policy.model, snippets, regime.rollouts, derive_seed(seed, "study held out"), True)
    drawn = [rows[0].trajectory for rows in q.draw(snippets, 1, derive_seed(seed, "study agreement"))]
    return bounds(found, sum(len(snippet.lines) for snippet in snippets)), agreed(drawn, Truth(programs), tokenizer)


def bounds(found: HeldOut, lines: int) -> dict[str, float]:
    """Per token as `HeldOut.per_token` has them, and the same nats per line of code."""
    nats = {"plain": found.plain, "own": found.own, "iwae": found.iwae}
    return found.per_token() | {f"{name}_line": float(np.sum(values)) / lines for name, values in nats.items()}


def agreed(written: list[Trajectory], truth: Truth, tokenizer: Any) -> dict[str, Any]:
    """Agreement of what was written into programs with the truth about them, as JSON."""
    return asdict(agreement(spans_of(written, truth, tokenizer)))


# --- the run ---------------------------------------------------------------------------------------------------------


def of_run(run: Path, corpus: str, regime: Regime) -> dict[str, Any]:
    """What a finished run says of itself: M-step cross-entropy, tokens, annotated corpus, curve of the reward.

    Args:
        run: its folder.
        corpus: name of its expert corpus.
        regime: of the study.
    """
    found: dict[str, Any] = {}
    curves = read_curves(run) if has_events(run) else {}
    trained = [curves[tag] for tag in ("mstep/tokens", "ntp/tokens") if tag in curves]
    if trained:
        found["trained_tokens"] = int(sum(curve.values.sum() for curve in trained))
    if "rlvr/completions/mean_length" in curves:
        answers = sum(curves[f"rlvr/answers_{which}_thoughts"].values for which in ("with", "without"))
        found["sampled_tokens"] = round(float((curves["rlvr/completions/mean_length"].values * answers).sum()))
    for tag in ("mstep/code_loss", "ntp/code_loss"):
        if tag in curves:
            found["m_step"] = end_of(curves[tag].finite().values)
    found["estep"] = {name: ends(curves[f"estep/{name}"]) for name in E_STEP if f"estep/{name}" in curves}
    if "rlvr/reward" in curves:
        rewards = curves["rlvr/reward"].finite().values.tolist()
        found["rlvr"] = asdict(curve_measures(rewards, regime.threshold, regime.window)) | {"rewards": rewards}
    store = run / "store" / f"iteration-{regime.iterations - 1}"  # what the last M-step was trained on
    if (store / "manifest.json").is_file():
        annotated = BootstrappedStore.open(store)
        found["annotated"] = annotated.stats()
        tokenizer = BasePolicy(model=str(run / "model")).tokenizer
        found["annotated"]["agreement"] = agreed(annotated[: regime.held_out], Truth.of(corpus), tokenizer)
    return found


E_STEP = ("reward", "thought_rate", "thought_length")


def ends(curve: Curve) -> dict[str, float]:
    """The first value of a curve, and the mean of its last tenth."""
    values = curve.finite().values
    return {"first": float(values[0]), "last": end_of(values)} if len(values) else {}


def of_evaluation(folder: Path) -> dict[str, Any]:
    """Scores of an evaluation with intervals over problems, shares of programs that compile and of answers cut."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    scores = results["scores"]
    return {
        **{name: score["value"] for name, score in scores.items()},
        "intervals": {name: [score["lo"], score["hi"]] for name, score in scores.items()},
        "tasks": results["tasks"],
        "compiling": results["compiling"],
        "cut": results["cut"],
    }
