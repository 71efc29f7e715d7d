"""The arms of the study: each is a recipe, the arm whose model it starts from, and what is set in it.

To add one, add a line to `ARMS` (and to a preset in `ra3kit.study.regime`, or ask for it with `--arms`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ra3kit.errors import RecipeError, nearest
from ra3kit.study.regime import Regime


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to train.

    Args:
        name: of the arm, and of its folder.
        about: what it is, in words.
        recipe: by name.
        after: the arm whose model it starts from; "" for the base, which starts from nothing.
        takes: variable of the recipe -> the number of the regime that it is set to.
        sets: variable of the recipe -> value, in place of the regime's.
        minutes: of one CPU core, about; for the time left.
        sweep: name of the sweep it belongs to; "" for none. x: its place on the sweep's axis.
    """

    name: str
    about: str
    recipe: str
    after: str = "base"
    takes: Mapping[str, str] = field(default_factory=dict)
    sets: Mapping[str, float] = field(default_factory=dict)
    minutes: float = 1.0
    sweep: str = ""
    x: float = 0.0

    @property
    def needs(self) -> tuple[str, ...]:
        """Arms that must be trained before."""
        return (self.after,) if self.after else ()

    def overrides(self, regime: Regime, seed: int, start: Path | None) -> list[str]:
        """Everything that is set in the recipe, as on the command line; `run.dir` aside.

        Args:
            regime: of the study.
            seed: of world and training.
            start: folder of the model it starts from; None for the base.
        """
        settings: dict[str, object] = {"vars.world": seed, "run.seed": seed}
        if start is None:
            corpus = f"{regime.family}:base"
            settings["trainer.max_steps"] = regime.base_steps
            if regime.family != "family":
                settings["data.path"] = f"{corpus}:n=6000:world={seed}"
                settings["model.tokenizer.corpus"] = f"{corpus}:world={seed}"
            return [*(f"{key}={value}" for key, value in settings.items()), *regime.base_overrides]
        settings |= {"vars.family": regime.family, "vars.base": start}
        settings |= {f"vars.{key}": getattr(regime, name) for key, name in self.takes.items()}
        settings |= {f"vars.{key}": value for key, value in self.sets.items()}
        return [f"{key}={value}" for key, value in settings.items()]


RLVR = "study/grpo"
"""Recipe of the arms after mid-training."""
TRAINED = {"programs": "programs", "steps": "steps"}
EM = {"programs": "programs", "steps": "m_steps", "iterations": "iterations"}
Q = {**EM, "updates": "updates", "c": "c"}

_ARMS = (  # those of the claims first
    Arm("base", "pretrained on sloppy, commented programs; where all others start", "tiny-base", "", minutes=2.5),
    Arm("ntp", "next-token prediction on the expert corpus", "study/ntp", takes=TRAINED, minutes=0.5),
    Arm("ra3", "RA3 with a causal posterior, as in the paper", "study/ra3", takes=Q, minutes=1.8),
    Arm(
        "ntp-compute",
        "next-token prediction for about as many CPU seconds as RA3 takes",
        "study/ntp",
        takes={"programs": "programs", "steps": "compute_steps"},
        minutes=2,
    ),
    *(
        Arm(f"grpo-from-{start}", f"GRPO from {start}", RLVR, start, {"steps": "grpo_steps"}, minutes=1.5)
        for start in ("base", "ntp", "ra3")
    ),
    Arm("random", "control: thoughts in random places", "study/random", takes=EM, minutes=0.5),
    Arm("oracle", "upper bound: the true intents at their lines", "study/oracle", takes=EM, minutes=0.5),
    Arm(
        "resampled",
        "no RL: the best of 8 draws by likelihood annotates",
        "study/resampled",
        takes={**EM, "c": "c"},
        minutes=0.9,
    ),
    Arm(
        "brite",
        "BRiTE-style: one thought for the program, one reward",
        "study/brite",
        takes={**EM, "updates": "updates"},
        minutes=1,
    ),
    Arm(
        "every-line",
        "a thought before every line",
        "study/every-line",
        takes={**EM, "updates": "updates"},
        minutes=2.7,
    ),
    Arm("ra3-hindsight", "RA3 with a posterior that sees coming lines", "study/ra3-hindsight", takes=Q, minutes=5.3),
    *(
        Arm(f"c={c:g}", f"RA3 with c = {c:g}", "study/ra3", takes=Q, sets={"c": c}, minutes=1.8, sweep="c", x=c)
        for c in (0, 0.25, 4, 16)
    ),
    *(
        Arm(
            f"{of}-programs={n}",
            f"{of} with {n} expert programs",
            f"study/{of}",
            takes=Q if of == "ra3" else TRAINED,
            sets={"programs": n},
            minutes=1.8 if of == "ra3" else 0.5,
            sweep="programs",
            x=n,
        )
        for n in (150, 600, 1500)
        for of in ("ntp", "ra3")
    ),
    *(
        Arm(
            f"ntp-steps={n}",
            f"ntp with {n} steps",
            "study/ntp",
            takes=TRAINED,
            sets={"steps": n},
            minutes=n / 700,
            sweep="steps",
            x=n,
        )
        for n in (150, 600)
    ),
)
ARMS: dict[str, Arm] = {arm.name: arm for arm in _ARMS}
"""By name. An arm stands after those it needs."""


def chosen(names: Sequence[str], arms: Mapping[str, Arm] = ARMS) -> list[Arm]:
    """Arms by name, with all that they need, in the order of `arms`.

    Raises:
        RecipeError: no such arm.
    """
    wanted: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in arms:
            raise RecipeError(f"--arms {name}: allowed are {', '.join(arms)}.{nearest(name, arms)}")
        if name not in wanted:
            wanted.add(name)
            waiting += arms[name].needs
    return [arm for arm in arms.values() if arm.name in wanted]


def lineage(arm: Arm, arms: Mapping[str, Arm] = ARMS) -> list[str]:
    """The arm and all those that it comes from.

    >>> lineage(ARMS["grpo-from-ra3"])
    ['grpo-from-ra3', 'ra3', 'base']
    """
    return [arm.name, *(name for needed in arm.needs for name in lineage(arms[needed], arms))]


def of_sweep(name: str, arms: Iterable[Arm]) -> list[Arm]:
    """The arms of a sweep, by their place on its axis."""
    return sorted((arm for arm in arms if arm.sweep == name), key=lambda arm: arm.x)
