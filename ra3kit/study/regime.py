"""The regime of the study: every number of it in one place, with its reason, fixed before a full run.

Where each comes from: "lead" is what earlier, smaller experiments on another generated family found; "cost" is what
keeps an arm within minutes of one CPU core. Numbers of the arms that are not here stand in `recipes/study/*.yaml`, the
base's in `recipes/tiny-base.yaml`, the family's in `ra3kit.study.lists.ListFamily`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ra3kit.errors import RecipeError, nearest

SLOTS = 128
"""Rows in flight when models are measured: faster than the default at this size; no figure depends on it."""


@dataclass(frozen=True)
class Regime:
    """Numbers that are the same for all arms and seeds.

    Args:
        family: name of the family, "family" or "family:my.module.MyFamily".
        base_steps: optimizer steps of the base's pretraining. 1,800: it writes programs that compile and comments that
            name intents, and hardly any that pass.
        base_overrides: further settings of the base's recipe, for other models.
        programs: of the expert corpus. 300: few, so that NTP has no easy time. With the 1,500 of the lead it has one
            here: one development world gave NTP 86 % of pass@1 and RA3 75 %, see docs/findings.md.
        steps: optimizer steps of next-token prediction, of every arm alike: the same code tokens. 300 (cost): about 16
            passes over the expert corpus.
        iterations: of EM, which share out the steps. 2: the base has not seen the expert's new idioms, and pays badly
            for what is before them; a pi that has been through one M-step pays better. One development world gave 61 %
            of pass@1 with one iteration of twice the length and 72 % with two, at equal cost.
        updates: of each E-step. 15 (lead: 30 in all).
        compute_steps: of next-token prediction at equal compute. 1,350: RA3 took 3.7 to 4.3 times the CPU seconds of
            NTP's 300 steps on the development worlds; a little more than that, and a number of steps, so that a seed
            fixes the result, which measured seconds would not.
        c: nats a thought costs, of a line's summed log-likelihood. 1.0 (lead): between .05 and 1 nothing changes, at 4
            nothing is thought any more.
        grpo_steps: of GRPO. 30 (cost).
        held_out: expert programs on which bounds and agreement are measured, none of them in the training corpus. 100
            (cost).
        rollouts: draws of each for the bounds. 8: IWAE-8.
        tasks: on which pass@k is measured. 200: what the family has of each split.
        samples: of each task at temperature 1, for pass@1 and pass@5. 5 (cost): of the noise of a score, tasks have the
            larger part.
        max_new_tokens: of an answer. 192: the longest reference answer has 142, and as many thoughts as intents.
        max_length: tokens of a thought when models are measured. 16, as in the recipes: names of intents have 3 to 12.
        gate: least share of the base's own thoughts on held-out code that name the intent of their line. .85 (lead):
            with .5 every arm with thoughts failed, whatever it did. Seeds below it are listed with their results, and
            left out of the claims.
        threshold: of the reward of GRPO, for the steps to it. .7.
        window: steps of the running mean for it. 5.
    """

    family: str = "family"
    base_steps: int = 1800
    base_overrides: tuple[str, ...] = ()
    programs: int = 300
    steps: int = 300
    iterations: int = 2
    updates: int = 15
    compute_steps: int = 1350
    c: float = 1.0
    grpo_steps: int = 30
    held_out: int = 100
    rollouts: int = 8
    tasks: int = 200
    samples: int = 5
    max_new_tokens: int = 192
    max_length: int = 16
    gate: float = 0.85
    threshold: float = 0.7
    window: int = 5

    @property
    def m_steps(self) -> int:
        """Steps of each M-step.

        Raises:
            RecipeError: the steps can't be shared out evenly, and arms would not be trained alike.
        """
        if self.steps % self.iterations:
            raise RecipeError(f"steps={self.steps} can't be shared out among iterations={self.iterations}")
        return self.steps // self.iterations


@dataclass(frozen=True)
class Preset:
    """A study that can be asked for.

    Args:
        name: of it.
        about: in words.
        regime: its numbers.
        seeds: each is the seed of a world, of its base and of all its arms. Fresh: nothing was tried on them before.
        arms: names of arms, in order.
        split: of the tasks: "test" for what is reported, "val" for whoever develops.
        sweep_seeds: sweeps are run on the first so many: they show a course, and no claim rests on them.
        pace: time of an arm as a share of that with the full regime, about; for the time left.
        smoke: too few seeds to show anything, whatever they say.
    """

    name: str
    about: str
    regime: Regime
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    split: Literal["val", "test"] = "test"
    sweep_seeds: int = 2
    pace: float = 1.0
    smoke: bool = False


MAIN = (
    *("base", "ntp", "ra3", "ntp-compute", "grpo-from-base", "grpo-from-ntp", "grpo-from-ra3"),
    *("oracle", "random", "resampled", "ra3-hindsight", "brite", "every-line"),
)
SWEEPS = (
    *("ntp-steps=150", "ntp-steps=600"),
    *("c=0", "c=0.25", "c=4", "c=16"),
    *("ntp-programs=150", "ra3-programs=150", "ntp-programs=600", "ra3-programs=600"),
    *("ntp-programs=1500", "ra3-programs=1500"),
)
FULL = Regime()
QUICK = replace(
    FULL, base_steps=900, steps=150, updates=5, compute_steps=300, grpo_steps=8, held_out=48, rollouts=4, tasks=60
)

PRESETS: dict[str, Preset] = {
    "quick": Preset(
        "quick",
        "a smoke run: does everything work here? Two seeds and short runs show nothing about the claims",
        QUICK,
        (21, 22),
        ("base", "ntp", "ra3", "resampled", "oracle", "grpo-from-ntp", "grpo-from-ra3"),
        pace=0.5,
        smoke=True,
    ),
    "full": Preset("full", "the study: 6 fresh worlds, all arms, sweeps", FULL, tuple(range(1, 7)), (*MAIN, *SWEEPS)),
}


def preset_of(name: str) -> Preset:
    """A preset by name.

    Raises:
        RecipeError: there is none.
    """
    if name not in PRESETS:
        raise RecipeError(f"--preset {name}: allowed are {', '.join(PRESETS)}.{nearest(name, PRESETS)}")
    return PRESETS[name]


# --- what is claimed -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """One arm against another by one measure, said before the run.

    Args:
        ours, theirs: arms.
        measure: key of `ra3kit.study.measures.MEASURES`.
        target: what the difference should reach, in the measure's unit and in its good direction; None: any.
        about: in words.
    """

    ours: str
    theirs: str
    measure: str
    target: float | None = None
    about: str = ""


CLAIMS: tuple[Claim, ...] = (
    Claim("ra3", "ntp", "pass@1", 0.10, "RA3 > NTP after mid-training"),
    Claim("ra3", "base", "pass@1", None, "RA3 > base after mid-training"),
    Claim("ra3", "ntp", "iwae_line", 0.02, "RA3 explains held-out code better than NTP"),
    Claim("grpo-from-ra3", "grpo-from-ntp", "area", 0.10, "RLVR from RA3 > from NTP, area under the curve"),
    Claim("grpo-from-ra3", "grpo-from-base", "area", None, "RLVR from RA3 > from the base, area under the curve"),
    Claim("grpo-from-ra3", "grpo-from-ntp", "pass@1", 0.08, "RLVR from RA3 > from NTP, at its end"),
    Claim("ra3", "ntp-compute", "pass@1", None, "RA3 > NTP at equal CPU time"),
    Claim("ntp", "base", "pass@1", None, "NTP > base after mid-training (a separate claim that may fail)"),
)
"""Fixed before a full run. Everything else in the report is shown beside them, and is no claim."""

CAVEAT = (
    "In this family the base was taught the words in which thoughts are written: half of its corpus has a comment that "
    "names the intent before its lines. And the regime was chosen among others in which RA3 did not help: it needs "
    "thoughts of the base that are mostly right on the expert's tasks, a weak direct path from specification to code, "
    "and few expert programs. Seeds whose base writes poor thoughts are left out of the claims, and are listed with "
    "their results. Models of a quarter of a million parameters on generated programs say nothing about the size of an "
    "effect elsewhere."
)
"""Printed beside every result."""
