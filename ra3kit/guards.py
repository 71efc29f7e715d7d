"""What can go wrong in a run, told from the figures it logs: small pure detectors. `ra3kit.callbacks.guards` runs them.

A detector takes the values of one metric, oldest first (NaN where there was nothing to measure), and returns what a
person should read, or None. None of them looks at weights, so processes that log the same figures decide the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NO_THOUGHTS = 0.005
"""A thought rate below this is no thinking."""

SHORTEST = 3
"""Tokens of the shortest thought: "#", one token, the line end."""

WITHOUT_THOUGHTS = "its thoughts did not pay, and RA3 without thoughts is NTP. See docs/findings.md"


@dataclass(frozen=True)
class Finding:
    """What a guard found.

    Args:
        name: of the detection; its tag in TensorBoard is `guard/<name>`.
        message: what was seen and what to do.
        step: optimizer steps done.
        phase: "warmup", "e", "m", "ntp" or "rlvr".
        iteration: of the EM loop, 0-based.
        action: "warn" or "stop".
    """

    name: str
    message: str
    step: int
    phase: str
    iteration: int
    action: str

    def __str__(self) -> str:
        of = f" of iteration {self.iteration}" if self.phase in ("e", "m") else ""
        return f"guard/{self.name} at step {self.step}, phase {self.phase}{of}: {self.message}"


def findings(callbacks: Iterable[Any]) -> list[Finding]:
    """What the guards among a trainer's callbacks have found, in the order of the steps."""
    found = [finding for callback in callbacks for finding in getattr(callback, "findings", ())]
    return sorted(found, key=lambda finding: finding.step)


# --- collapse --------------------------------------------------------------------------------------------------------


def thought_rate_zero(
    rates: Sequence[float], window: int, below: float = NO_THOUGHTS, began: float | None = None
) -> str | None:
    """q has stopped thinking, or never did: mean rate of the last `window` updates below `below`.

    Args:
        rates: thought rates in [0, 1], of the running phase.
        window: updates averaged.
        below: a lower rate is no thinking.
        began: rate of the first update of the run; of this phase where it is not given.

    >>> thought_rate_zero([0.2, 0.1, 0.0, 0.0, 0.0], 3)[:60]
    'the thought rate is 0.00% over the last 3 updates (it was 20'
    """
    now = last_mean(rates, window)
    if now is None or now >= below:
        return None
    began = rates[0] if began is None else began
    if began < below:
        return (
            f"the thought rate is {now:.2%} over the last {window} updates, and was {began:.2%} at first: the "
            "posterior hardly ever opens a thought. Warm pi up on commented code (warmup_comments: thoughts), or "
            "start from a model that writes comments."
        )
    return (
        f"the thought rate is {now:.2%} over the last {window} updates (it was {began:.2%}): {WITHOUT_THOUGHTS}. A "
        "smaller c, fewer updates or a smaller learning rate of q keep more of them."
    )


def thought_rate_one(rates: Sequence[float], window: int, above: float = 0.98) -> str | None:
    """q thinks before every line, though nothing makes it: mean rate of the last `window` updates above `above`."""
    now = last_mean(rates, window)
    if now is None or now <= above:
        return None
    return (
        f"the thought rate is {now:.1%} over the last {window} updates: a thought before every line is no abstraction. "
        "Raise c; a prior that pays for thoughts (a negative penalty) does this."
    )


def same_thought(
    shares: Sequence[float], distinct: Sequence[float], window: int, share: float = 0.8, ratio: float = 0.25
) -> str | None:
    """One thought for everything.

    Args:
        shares: share of the most common thought among all thoughts of an update.
        distinct: different thoughts among all thoughts of an update; one thought for n is 1 / n, so that `ratio` also
            asks for at least 1 / ratio thoughts.
        window, share, ratio: fires when the means of the last `window` updates are at least and at most these.
    """
    most, different = last_mean(shares, window), last_mean(distinct, window)
    if most is None or different is None or most < share or different > ratio:
        return None
    return (
        f"{most:.0%} of the thoughts of the last {window} updates are one and the same: it tells nothing about the "
        "lines it precedes. Raise c, or add entropy_coef to the learner."
    )


def thoughts_shrinking(
    first: Sequence[float], lengths: Sequence[float], window: int, fraction: float = 0.4, shortest: int = SHORTEST
) -> str | None:
    """Thoughts have become much shorter than they were, or as short as a thought can be.

    Args:
        first: mean lengths in tokens of the first updates of the run.
        lengths: of the running phase.
        window: updates averaged, at both ends.
        fraction: fires when the mean falls below this share of what it was at first,
        shortest: or to within a quarter of a token of this, from at least one token above it.
    """
    began, now = known(first)[:window], last_mean(known(lengths), window)
    if len(began) < window or now is None:
        return None
    before = float(np.mean(began))
    floor = now <= shortest + 0.25 and before >= shortest + 1
    if now >= fraction * before and not floor:
        return None
    return (
        f"the mean length of a thought has fallen from {before:.1f} to {now:.1f} tokens: likelihood rewards shorten "
        "thoughts towards nothing. Fewer updates or a smaller learning rate of q keep them longer."
    )


# --- divergence ------------------------------------------------------------------------------------------------------

LOWER = "Lower the learning rate, lengthen the warm-up, or look at the batch"


def not_finite(values: Mapping[str, float]) -> str | None:
    """A figure that is NaN or infinite."""
    bad = {tag: value for tag, value in values.items() if not math.isfinite(value)}
    if not bad:
        return None
    said = ", ".join(f"{tag} is {value}" for tag, value in bad.items())
    return f"{said}: the run has diverged, nothing it trains from here on is worth keeping. {LOWER}."


def loss_diverging(losses: Sequence[float], window: int, factor: float = 1.5, margin: float = 0.5) -> str | None:
    """A loss far above what it was.

    Fires when the median of the last `window` losses is above `factor` times the lowest median of `window` losses
    before, and `margin` above it. The first loss counts too, so that a run that diverges at once is seen.

    Args:
        losses: nats per token, of one phase.
        window: losses in a median: a single bad batch does not fire.
        factor, margin: see above; margin in nats per token.
    """
    values = known(losses)
    if len(values) < window + 1:
        return None
    medians = np.median(np.lib.stride_tricks.sliding_window_view(np.asarray(values), window), axis=1)
    lowest, now = min(float(medians.min()), values[0]), float(medians[-1])
    if now <= factor * lowest or now <= lowest + margin:
        return None
    return f"the loss has risen from {lowest:.4g} to {now:.4g} nats per token: it diverges. {LOWER}."


# --- reward ----------------------------------------------------------------------------------------------------------


def noisy_reward(noise_floor: float, price: float | None, scale: str) -> str | None:
    """The reward changes by more than a quarter of a thought's price when only the batch shape does.

    Args:
        noise_floor: largest difference of a line's reward between two batch shapes, in the unit of `scale`.
        price: what the prior charges for a thought, in that unit; None or 0 where there is nothing to compare with.
        scale: "token_mean" or "line_sum".
    """
    if not price or not noise_floor > price / 4:
        return None
    unit = "nats per token" if scale == "token_mean" else "nats"
    return (
        f"the log-prob noise floor is {noise_floor:.3g} {unit}, above a quarter of the price of a thought, {price:g} "
        f"{unit} (scale {scale}): a thought that pays can't be told from one that does not. Score in float32 "
        "(trainer.precision: 32-true, policy.dtype: float32), charge more (a larger c, or line_sum), or keep all "
        "batches in one shape."
    )


def reward_stalled(rewards: Sequence[float], window: int, min_gain: float = 0.0) -> str | None:
    """No gain: the mean reward of the last `window` updates is at most `min_gain` above that of the `window` before."""
    if len(rewards) < 2 * window:
        return None
    now, before = float(np.mean(rewards[-window:])), float(np.mean(rewards[-2 * window : -window]))
    if now - before > min_gain:
        return None
    return (
        f"the mean reward has gone from {before:.4g} to {now:.4g} over the last {2 * window} updates, no gain: the "
        "E-step has converged, or learns nothing. End it sooner (EMSwitch: window, min_gain), or raise the learning "
        "rate of q."
    )


# --- RLVR ------------------------------------------------------------------------------------------------------------


def entropy_collapse(
    first: Sequence[float], entropies: Sequence[float], window: int, fraction: float = 0.2
) -> str | None:
    """The policy has become much more certain than it was: the answers of a group hardly differ any more.

    Args:
        first: entropies of the first steps of the run, nats per sampled token.
        entropies: of the running phase.
        window: steps averaged, at both ends.
        fraction: fires when the mean is below this share of what it was at first.
    """
    began, now = list(first)[:window], last_mean(entropies, window)
    if len(began) < window or now is None or now >= fraction * float(np.mean(began)):
        return None
    return (
        f"the entropy of sampled tokens has fallen from {float(np.mean(began)):.3g} to {now:.3g} nats per token: the "
        "answers to a problem become one and the same, and there is nothing left to choose from. A larger clip_high, "
        "fewer updates_per_batch or a smaller learning rate keep them apart."
    )


def no_signal(
    skipped: Sequence[float], all_pass: Sequence[float], all_fail: Sequence[float], window: int
) -> str | None:
    """No group taught anything: in each of the last `window` steps all of them were skipped.

    Args:
        skipped, all_pass, all_fail: shares of the groups of a step.
        window: steps.
    """
    if len(skipped) < window or min(skipped[-window:]) < 1:
        return None
    passing, failing = last_mean(all_pass, window) or 0.0, last_mean(all_fail, window) or 0.0
    return (
        f"all groups of the last {window} steps were skipped, {passing:.0%} of them because every answer passes and "
        f"{failing:.0%} because every one fails: nothing is learned. Choose problems by difficulty for this policy, "
        "use larger groups, or more mid-training."
    )


def logp_gap(gaps: Sequence[float], window: int, most: float = 0.01) -> str | None:
    """Sampler and trainer are not the same model: mean gap of the last `window` steps above `most`.

    Args:
        gaps: mean |log-probability when sampled - under the trainer, same weights|, nats per token.
        window: steps averaged.
        most: a larger gap is more than rounding.
    """
    now = last_mean(gaps, window)
    if now is None or now <= most:
        return None
    return (
        f"the log-probabilities of sampler and trainer differ by {now:.3g} nats per token over the last {window} "
        f"steps, more than rounding ({most:g}): they are not the same model, and the gradient is that of another "
        "policy. Check the sampler's weights, precision, temperature and prompt; importance_cap corrects part of it."
    )


def answers_clipped(ratios: Sequence[float], window: int, most: float = 0.5) -> str | None:
    """Most answers do not end: the mean share cut at the length limit of the last `window` steps is above `most`."""
    now = last_mean(ratios, window)
    if now is None or now <= most:
        return None
    return (
        f"{now:.0%} of the answers of the last {window} steps were cut at max_new_tokens: most fail for their length, "
        "whatever they say. Raise max_new_tokens, or see whether the policy writes its end or a stop string at all "
        "(RLVRMonitor shows answers)."
    )


def not_judged(shares: Sequence[float], window: int, most: float = 0.05) -> str | None:
    """Verdicts that say nothing of the program (internal, refused): mean share of the last `window` above `most`."""
    now = last_mean(shares, window)
    if now is None or now <= most:
        return None
    return (
        f"{now:.0%} of the answers of the last {window} steps were not judged (verdict internal or refused), and were "
        "not trained on. The reasons are in the files of RLVRMonitor; `ra3kit doctor` tests the sandbox. More time "
        "for a step (judge.deadline), or fewer programs at a time, help where it is the load."
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def known(values: Sequence[float]) -> list[float]:
    """Without those that were not measured."""
    return [value for value in values if not math.isnan(value)]


def last_mean(values: Sequence[float], window: int) -> float | None:
    """Mean of the last `window` values; None while there are fewer, or where one of them was not measured."""
    last = known(list(values)[-window:])
    return float(np.mean(last)) if len(last) == window else None
