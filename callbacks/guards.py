"""Guards: watch the figures a run logs, name what goes wrong, and warn or stop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from ra3kit.abstraction.prior import LatentPrior, TemporalPrior
from ra3kit.callbacks.latent_monitor import log_scalars, log_text
from ra3kit.errors import DivergenceError, RecipeError, RunError
from ra3kit.guards import (
    Finding,
    answers_clipped,
    entropy_collapse,
    logp_gap,
    loss_diverging,
    no_signal,
    noisy_reward,
    not_finite,
    not_judged,
    reward_stalled,
    same_thought,
    thought_rate_one,
    thought_rate_zero,
    thoughts_shrinking,
)
from ra3kit.ranges import check_number
from ra3kit.verify.problem import JUDGED, STATUSES

Action = Literal["warn", "stop"]
KEPT = 256
"""Values kept of each metric: of the running phase the last ones, of the run the first ones."""

GROUPS = {"warmup": ("warmup",), "e": ("estep",), "m": ("mstep", "ntp"), "ntp": ("ntp",), "rlvr": ("rlvr",)}
"""The tags a phase writes; others in the trainer's metrics are left over from the phase before."""

ONLY_WITH_THOUGHTS = ("estep/thought_length", "estep/thought_distinct", "estep/thought_most_common")

ONLY_WHEN_TRAINED = (
    *("rlvr/loss", "rlvr/grad_norm", "rlvr/entropy", "rlvr/kl"),
    *("rlvr/logp_gap_mean", "rlvr/logp_gap_max", "rlvr/is_weight_mean"),
)
"""Not logged by a step of RLVR all of whose groups were skipped."""


@dataclass(frozen=True)
class Seen:
    """What a guard looks at after an optimizer step.

    Args:
        phase: "warmup", "e", "m", "ntp" or "rlvr"; iteration: of the EM loop.
        module: what is trained, for its settings.
        now: the figures of this step, by tag.
        history: the last figures of this phase, by tag, oldest first; NaN where there was nothing to measure.
        first: the first figures of the run, by tag.
    """

    phase: str
    iteration: int
    module: L.LightningModule
    now: Mapping[str, float]
    history: Mapping[str, Sequence[float]]
    first: Mapping[str, Sequence[float]]


class Guard(Callback, ABC):
    """Base of guards: reads logged metrics after every optimizer step and acts on what `check` returns.

    Each detection acts once a phase. It is logged as `guard/<name>` = 1 and as text, said in a plain line, and kept for
    `results.json`; "stop" then ends the run with a `RunError`, and all that was saved stays. A guard of your own:

    >>> class Verbose(Guard):
    ...     reads = ("estep/thought_length",)
    ...
    ...     def check(self, seen):
    ...         length = seen.now.get("estep/thought_length", 0.0)
    ...         return {"verbose": f"thoughts have {length:.0f} tokens"} if length > 40 else {}

    Decisions rest on logged figures alone, which are the same on all processes.

    Args:
        on_trigger: "warn" or "stop".
    """

    reads: tuple[str, ...] = ()
    """Tags this guard needs."""

    def __init__(self, on_trigger: Action = "warn"):
        if on_trigger not in ("warn", "stop"):
            raise RecipeError(f"{type(self).__name__}: on_trigger={on_trigger!r}: allowed are 'warn' and 'stop'")
        self.on_trigger = on_trigger
        self.findings: list[Finding] = []
        self._at: tuple[str, int] = ("", 0)
        self._fired: set[str] = set()
        self._history: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._first: dict[str, list[float]] = defaultdict(list)

    @abstractmethod
    def check(self, seen: Seen) -> dict[str, str]:
        """What is wrong now: name -> what to tell. Asked after every step; acted on the first time in a phase."""

    # ---- hooks ----------------------------------------------------------------------------------------------------

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        phase, iteration = whereabouts(pl_module, trainer.callback_metrics)
        if (phase, iteration) != self._at:
            self._at, self._fired = (phase, iteration), set()
            self._history.clear()
        now = figures(trainer.callback_metrics, self.reads, phase)
        for tag, value in now.items():
            self._history[tag].append(value)
            if len(self._first[tag]) < KEPT:
                self._first[tag].append(value)
        seen = Seen(phase, iteration, pl_module, now, {t: list(v) for t, v in self._history.items()}, self._first)
        for name, message in self.check(seen).items():
            if name not in self._fired:
                self.act(trainer, name, message)

    def act(self, trainer: L.Trainer, name: str, message: str) -> None:
        """Log, say and keep a detection; stop where that was chosen.

        Raises:
            RunError: on_trigger is "stop".
        """
        finding = self.keep(trainer, name, message, self.on_trigger)
        if self.on_trigger == "stop":
            raise RunError(f"{finding} The run stops; what was written so far is in {trainer.default_root_dir}")
        if trainer.is_global_zero:
            bar = trainer.progress_bar_callback
            say = print if bar is None else bar.print
            say(f"warning: {finding}")

    def keep(self, trainer: L.Trainer, name: str, message: str, action: str) -> Finding:
        """Add a finding to the run's, and to TensorBoard."""
        self._fired.add(name)
        finding = Finding(name, message, trainer.global_step, *self._at, action)
        self.findings.append(finding)
        log_scalars(trainer, {f"guard/{name}": 1.0})
        log_text(trainer, f"guard/{name}", str(finding))
        return finding

    # ---- state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "at": list(self._at),
            "fired": sorted(self._fired),
            "history": {tag: list(values) for tag, values in self._history.items()},
            "first": {tag: list(values) for tag, values in self._first.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.findings = [Finding(**finding) for finding in state["findings"]]
        phase, iteration = state["at"]
        self._at, self._fired = (phase, iteration), set(state["fired"])
        self._history.clear()
        for tag, values in state["history"].items():
            self._history[tag].extend(values)
        self._first.clear()
        self._first.update(state["first"])


# ---- what is watched ------------------------------------------------------------------------------------------------


class Collapse(Guard):
    """Thoughts that stop, stand everywhere, are all the same, or shrink: `thought_rate_zero`, `thought_rate_one`,
    `same_thought`, `thoughts_shrinking`. What the rules of the posterior force is not reported.

    Args:
        window: updates averaged, from 1 to 128.
        rate_below: thought rate that counts as none.
        rate_above: thought rate that counts as everywhere.
        most_common: share of the most common thought that counts as one thought for everything.
        length_fraction: share of its first length that a thought may not fall below.
        on_trigger: "warn" or "stop".
    """

    reads = ("estep/thought_rate", *ONLY_WITH_THOUGHTS)

    def __init__(
        self,
        window: int = 5,
        rate_below: float = 0.005,
        rate_above: float = 0.98,
        most_common: float = 0.8,
        length_fraction: float = 0.4,
        on_trigger: Action = "warn",
    ):
        super().__init__(on_trigger)
        bounds = {"rate_below": rate_below, "rate_above": rate_above}
        check_settings(self, window, **bounds, most_common=most_common, length_fraction=length_fraction)
        self.window, self.rate_below, self.rate_above = window, rate_below, rate_above
        self.most_common, self.length_fraction = most_common, length_fraction

    def check(self, seen: Seen) -> dict[str, str]:
        if seen.phase != "e":
            return {}
        rates, lengths, distinct, shares = (seen.history.get(tag, []) for tag in self.reads)
        began = next(iter(seen.first.get("estep/thought_rate", ())), None)
        stopped = thought_rate_zero(rates, self.window, self.rate_below, began)
        everywhere = thought_rate_one(rates, self.window, self.rate_above)
        forced = thinking(seen.module)
        found = {
            "thought_rate_zero": stopped if forced != "never" else None,
            "thought_rate_one": everywhere if forced != "always" else None,
            "same_thought": same_thought(shares, distinct, self.window, self.most_common),
            "thoughts_shrinking": thoughts_shrinking(
                seen.first.get("estep/thought_length", []), lengths, self.window, self.length_fraction
            ),
        }
        return {name: message for name, message in found.items() if message is not None}


class Divergence(Guard):
    """Figures that are not finite (`loss_not_finite`), and losses that rise far above what they were
    (`loss_diverging`).

    A gradient that is not finite ends the run whatever is chosen here (`clip_gradients`); it is named and kept.

    Args:
        window: losses in a median, from 1 to 128.
        factor: of the lowest median, above which the loss diverges,
        margin: and at least so many nats per token above it.
        on_trigger: "warn" or "stop".
    """

    losses = ("warmup/loss", "mstep/loss", "ntp/loss")
    reads = (
        *losses,
        *("warmup/grad_norm", "mstep/grad_norm", "ntp/grad_norm"),
        *("estep/reward", "estep/line_logp", "estep/loss", "estep/entropy", "estep/kl", "estep/grad_norm"),
        *("rlvr/reward", "rlvr/loss", "rlvr/entropy", "rlvr/kl", "rlvr/grad_norm"),
    )

    def __init__(self, window: int = 5, factor: float = 1.5, margin: float = 0.5, on_trigger: Action = "warn"):
        super().__init__(on_trigger)
        check_settings(self, window, factor=factor, margin=margin)
        self.window, self.factor, self.margin = window, factor, margin

    def check(self, seen: Seen) -> dict[str, str]:
        found = {"loss_not_finite": not_finite(seen.now)}
        for tag in self.losses:
            rising = loss_diverging(seen.history.get(tag, []), self.window, self.factor, self.margin)
            if rising is not None:
                found["loss_diverging"] = f"{tag}: {rising}"
        return {name: message for name, message in found.items() if message is not None}

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, DivergenceError):
            self._at = whereabouts(pl_module, trainer.callback_metrics)
            self.keep(trainer, "loss_not_finite", str(exception), "stop")


class NoiseFloor(Guard):
    """A log-prob noise floor above a quarter of what a thought costs (`noise_floor`).

    Measured every `noise_floor_every` updates by RA3Module. A prior of your own is asked for its `c`; without one, or
    with c = 0, there is nothing to compare with.
    """

    reads = ("estep/noise_floor",)

    def check(self, seen: Seen) -> dict[str, str]:
        floor = seen.now.get("estep/noise_floor")
        prior, learner = getattr(seen.module, "prior", None), getattr(seen.module, "learner", None)
        if floor is None or prior is None or learner is None:
            return {}
        message = noisy_reward(floor, price(prior), learner.scale)
        return {} if message is None else {"noise_floor": message}


class StalledReward(Guard):
    """An E-step whose reward no longer rises (`reward_stalled`).

    Rewards differ from batch to batch by much more than an update gains: a short window sees mostly that.

    Args:
        window: updates in each of the two means compared, from 1 to 128.
        min_gain: in the reward's unit; fires at this gain or less.
        on_trigger: "warn" or "stop".
    """

    reads = ("estep/reward",)

    def __init__(self, window: int = 25, min_gain: float = 0.0, on_trigger: Action = "warn"):
        super().__init__(on_trigger)
        check_settings(self, window)
        check_number("StalledReward: min_gain", min_gain)
        self.window, self.min_gain = window, min_gain

    def check(self, seen: Seen) -> dict[str, str]:
        message = reward_stalled(seen.history.get("estep/reward", []), self.window, self.min_gain)
        return {} if message is None else {"reward_stalled": message}


class PostTraining(Guard):
    """RLVR that has nothing to learn from, or not what it seems: `entropy_collapse`, `no_signal`, `logp_gap`,
    `clipped`, `not_judged`.

    Args:
        window: steps averaged, from 1 to 128.
        entropy_fraction: share of its first entropy that a policy may not fall below.
        gap_above: nats per token by which the log-probabilities of sampler and trainer may differ.
        clipped_above: share of answers that may be cut at the length limit.
        not_judged_above: share of answers that may have no verdict about their program.
        on_trigger: "warn" or "stop".
    """

    verdicts = tuple(f"rlvr/verdict_{status}" for status in STATUSES)
    reads = (
        *("rlvr/entropy", "rlvr/logp_gap_mean", "rlvr/completions/clipped_ratio"),
        *("rlvr/groups_skipped", "rlvr/groups_all_pass", "rlvr/groups_all_fail"),
        *verdicts,
    )

    def __init__(
        self,
        window: int = 10,
        entropy_fraction: float = 0.2,
        gap_above: float = 0.01,
        clipped_above: float = 0.5,
        not_judged_above: float = 0.05,
        on_trigger: Action = "warn",
    ):
        super().__init__(on_trigger)
        bounds = {"clipped_above": clipped_above, "not_judged_above": not_judged_above}
        check_settings(self, window, entropy_fraction=entropy_fraction, gap_above=gap_above, **bounds)
        self.window, self.entropy_fraction, self.gap_above = window, entropy_fraction, gap_above
        self.clipped_above, self.not_judged_above = clipped_above, not_judged_above

    def check(self, seen: Seen) -> dict[str, str]:
        if seen.phase != "rlvr":
            return {}
        entropies, gaps, ratios, skipped, passing, failing = (seen.history.get(tag, []) for tag in self.reads[:6])
        found = {
            "entropy_collapse": entropy_collapse(
                seen.first.get("rlvr/entropy", []), entropies, self.window, self.entropy_fraction
            ),
            "no_signal": no_signal(skipped, passing, failing, self.window),
            "logp_gap": logp_gap(gaps, self.window, self.gap_above),
            "clipped": answers_clipped(ratios, self.window, self.clipped_above),
            "not_judged": not_judged(self._unjudged(seen), self.window, self.not_judged_above),
        }
        return {name: message for name, message in found.items() if message is not None}

    def _unjudged(self, seen: Seen) -> list[float]:
        """Of each step the share of answers without a verdict about their program; NaN for a step without answers."""
        histories = [seen.history.get(tag, []) for tag in self.verdicts]
        steps = min(map(len, histories))  # none where a module does not log them all
        counts = np.array([each[len(each) - steps :] for each in histories])  # [statuses, steps]
        unjudged, total = counts[[status not in JUDGED for status in STATUSES]].sum(0), counts.sum(0)
        return np.divide(unjudged, total, out=np.full_like(total, np.nan), where=total > 0).tolist()


class Guards(Callback):
    """All guards at once. See docs/guards.md.

    Args:
        on_trigger: "warn" or "stop", for the guards below when none are given.
        guards: which, each with a choice of its own; null for Collapse, Divergence, NoiseFloor, StalledReward and
            PostTraining.
    """

    def __init__(self, on_trigger: Action = "warn", guards: list[Guard] | None = None):
        default: list[Guard] = [
            kind(on_trigger=on_trigger) for kind in (Collapse, Divergence, NoiseFloor, StalledReward, PostTraining)
        ]
        self.guards = default if guards is None else guards

    @property
    def findings(self) -> list[Finding]:
        """What was found so far."""
        return [finding for guard in self.guards for finding in guard.findings]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for guard in self.guards:
            guard.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        for guard in self.guards:
            guard.on_exception(trainer, pl_module, exception)

    def state_dict(self) -> dict[str, Any]:
        return {type(guard).__name__: guard.state_dict() for guard in self.guards}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for guard in self.guards:
            if type(guard).__name__ in state:  # a guard that was added since begins anew
                guard.load_state_dict(state[type(guard).__name__])


# ---- parts ----------------------------------------------------------------------------------------------------------


def check_settings(guard: Guard, window: int, **numbers: float) -> None:
    """Refuse a window that is not kept, and a bound that no number is on the other side of."""
    check_number(f"{type(guard).__name__}: window", window, least=1, most=KEPT // 2, whole=True)
    for name, value in numbers.items():
        check_number(f"{type(guard).__name__}: {name}", value, least=0)


def whereabouts(module: L.LightningModule, metrics: Mapping[str, Any]) -> tuple[str, int]:
    """Phase and iteration; a module that knows no phases trains by next-token prediction, or is a learner alone."""
    phase = getattr(module, "phase", None)
    if phase is None:
        phase = "e" if "estep/reward" in metrics else "ntp"
    return str(phase), int(getattr(module, "iteration", 0))


def figures(metrics: Mapping[str, Any], tags: Sequence[str], phase: str) -> dict[str, float]:
    """The values of this step. The trainer keeps old ones where nothing new was logged: those of another phase are left
    out, so is what is measured in training where a step trained on nothing, and what is measured on thoughts is NaN
    where there were none."""
    now = {tag: float(metrics[tag]) for tag in tags if tag in metrics and tag.split("/")[0] in GROUPS.get(phase, ())}
    if now.get("estep/thought_rate") == 0:
        now |= {tag: float("nan") for tag in ONLY_WITH_THOUGHTS if tag in tags}
    if float(metrics.get("rlvr/answers_trained", 1)) == 0:
        now = {tag: value for tag, value in now.items() if tag not in ONLY_WHEN_TRAINED}
    return now


def thinking(module: L.LightningModule) -> str:
    """What the rules of the posterior force: "always", "never", or "free"."""
    rules = getattr(getattr(module, "posterior", None), "rules", None)
    return str(getattr(rules, "think", "free"))


def price(prior: LatentPrior) -> float | None:
    """What a thought costs, in the prior's unit, where that is one number."""
    if isinstance(prior, TemporalPrior):
        return None if prior.forbids_thinking else prior.log_stay - prior.log_switch
    given = getattr(prior, "c", None)
    return float(given) if isinstance(given, int | float) else None
