"""The pictures of `ra3kit theory`, from its results. They need matplotlib (the extra `plot`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ra3kit.theory import rooms
from ra3kit.theory.lab_convergence import table

BLUES = ("#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08306b")
BLUE, ORANGE, GREY, GREEN = "#2b6ca3", "#d1813a", "#8a8a8a", "#5f9e6e"
LABELS = {"below": "start from below: V = 0", "above": "start from above: V = R_max / (1 - gbar)"}


def draw(results: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw one PNG for each part of the report; none where matplotlib is not installed.

    Returns:
        the files' names in `folder`.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return []
    from matplotlib.figure import Figure

    pictures = {"pruning": _pruning, "convergence": _convergence, "regret": _regret, "loose": _loose}
    for name, fill in pictures.items():
        figure = Figure(figsize=(12, 4.3), layout="constrained")
        fill(figure, results)
        figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
    return [f"{name}.png" for name in pictures]


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _pruning(figure: Any, results: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    cells, (low, high) = results["pruning"]["cells"], results["pruning"]["band"]
    orders = np.array([cell["order"] for cell in cells])
    ends = np.array([orders.min() * 0.7, orders.max() * 1.4])
    left.fill_between(ends, low * ends, high * ends, color="#e4e4e4", label=f"{low:.2f} to {high:.2f} x the order")
    left.scatter(
        orders, [cell["union_bound"] for cell in cells], s=9, color=ORANGE, marker="_", label="the union bound"
    )
    ks = sorted({cell["k"] for cell in cells})
    for k, colour in zip(ks, BLUES[-len(ks) :], strict=True):
        own = [cell for cell in cells if cell["k"] == k]
        x, y = [cell["order"] for cell in own], [cell["samples"] for cell in own]
        left.scatter(x, y, s=14, color=colour, label=f"$|Z_\\epsilon|$ = {k}", zorder=3)
    left.set(
        xscale="log",
        yscale="log",
        xlabel=r"the theorem's order   $|Z_\epsilon|\ \log(|Z|/|Z_\epsilon|)\ /\ \sigma$",
        ylabel="expert samples until no bad subset is left",
        title="Measured samples follow the order",
    )
    left.legend(frameon=False, fontsize="small")
    delta = results["pruning"]["delta"]
    for cell, colour in zip(delta, BLUES[-len(delta) :], strict=True):
        deltas = np.array([float(d) for d in cell["samples"]])
        samples = np.array(list(cell["samples"].values())) * cell["sigma"]
        right.plot(1 / deltas, samples, "o-", ms=4, color=colour)
        right.plot(1 / deltas, samples[0] + cell["k"] * np.log(deltas[0] / deltas), ":", color=colour, lw=1)
        right.text(1.1 / deltas[-1], samples[-1], f"$|Z_\\epsilon|$ = {cell['k']}", va="center", color=colour)
    top = max(max(cell["samples"].values()) * cell["sigma"] for cell in delta)
    right.plot([], [], "o-", ms=4, color=GREY, label="measured")
    right.plot([], [], ":", color=GREY, label=r"if $\log(1/\delta)$ were multiplied by $|Z_\epsilon|$")
    right.set(
        xscale="log",
        xlim=(1.8, 900),
        ylim=(0, top * 1.4),
        xlabel=r"certainty wanted   $1/\delta$",
        ylabel=r"expert samples x $\sigma$",
        title=r"A smaller $\delta$ costs little: it is added",
    )
    right.set_xticks([2, 10, 100, 333], ["2", "10", "100", "333"])
    right.minorticks_off()
    right.legend(fontsize="small", loc="upper right", framealpha=1, edgecolor="white")
    _tidy(left)
    _tidy(right)


def _mean_tau(results: Mapping[str, Any], family: str) -> np.ndarray:
    rows = [row for row in results["convergence"]["rows"] if row["family"] == family]
    taus = sorted({row["tau"] for row in rows})
    return np.array([np.mean([row["mean_tau"] for row in rows if row["tau"] == tau]) for tau in taus])


def _convergence(figure: Any, results: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    rows, tau = results["convergence"]["rows"], _mean_tau(results, "expert")
    bound = {what: table(rows, "expert", what, "bound").mean(1) for what in ("pruned", "kept")}
    left.plot(tau, bound["pruned"], "--", color=ORANGE, label="the bound")
    for start, colour in (("below", BLUE), ("above", GREEN)):
        left.plot(tau, table(rows, "expert", "pruned", start).mean(1), "o-", ms=4, color=colour, label=LABELS[start])
    left.set(title="Only the options: longer ones need fewer sweeps", ylabel="sweeps of value iteration")
    right.plot(tau, bound["kept"], "--", color=ORANGE, label="the bound")
    lines = (
        ("random", "above", GREEN, "s:", "random options, start from above"),
        ("expert", "above", GREEN, "o-", "expert options, start from above"),
        ("random", "below", BLUE, "s:", "random options, start from below"),
        ("expert", "below", BLUE, "o-", "expert options, start from below"),
    )
    for family, start, colour, style, label in lines:
        count = table(rows, family, "kept", start).mean(1)
        right.plot(_mean_tau(results, family), count, style, ms=4, color=colour, label=label)
    right.set(title="Primitive actions kept: mostly no speed-up")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="mean duration of the options, primitive steps")
        axes.set_xticks(tau, [f"{t:.0f}" for t in tau])
        axes.set_yticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize="small", loc="lower left")
        _tidy(axes)


def _regret(figure: Any, results: Mapping[str, Any]) -> None:
    house, *panels = figure.subplots(1, 3, width_ratios=(0.8, 1, 1))
    _house(house, results["regret"]["first_kept"])
    curves = results["regret"]["curves"]
    top = max(max(curve["total"]["high"]) for curve in curves) * 1.15
    for axes, curve in zip(panels, curves, strict=True):
        kept, pruning = curve["kept"], np.array(curve["pruning"]["mean"])
        total = curve["total"]
        axes.fill_between(kept, 0, pruning, color=ORANGE, alpha=0.75, lw=0, label="lost by pruning")
        axes.fill_between(kept, pruning, total["mean"], color=BLUE, alpha=0.55, lw=0, label="lost by RL")
        middle = np.array(total["mean"])
        spread = [middle - total["low"], np.array(total["high"]) - middle]
        axes.errorbar(kept, middle, spread, color="black", lw=1.2, marker="o", ms=3, label="regret")
        best = int(middle.argmin())
        axes.annotate(
            f"least with {kept[best]}",
            (kept[best], middle[best]),
            (kept[best], middle[best] + 0.16 * top),
            ha="center",
            arrowprops={"arrowstyle": "->"},
        )
        axes.set(
            xscale="log", ylim=(0, top), xlabel="options kept, of 44", title=f"RL of {curve['budget']} steps a task"
        )
        ticks = [n for n in (1, 2, 4, 8, 20, 44) if n in kept]
        axes.set_xticks(ticks, [str(n) for n in ticks])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize="small", loc="upper right")
        _tidy(axes)
    panels[0].set_ylabel("mean regret")


def _house(axes: Any, first: list[int]) -> None:
    places = rooms.cells()
    rows, columns = (max(place[i] for place in places) + 1 for i in (0, 1))
    for r in range(rows):
        for c in range(columns):
            axes.add_patch(_square(r, c, "#f4f4f4" if (r, c) in places else "#555555"))
    steps = []
    for rank, option in enumerate(first, 1):
        if option < rooms.PRIMITIVES:
            steps.append(f"{rank}: a step {('north', 'east', 'south', 'west')[option]}")
            continue
        r, c = places[option - rooms.PRIMITIVES]
        axes.add_patch(_square(r, c, "#f3d3b3"))
        axes.text(c, r, str(rank), ha="center", va="center", weight="bold")
    axes.text(0, -0.33, "start", ha="center", va="center", fontsize=8)
    below = "\n".join(", ".join(steps[i : i + 2]) for i in range(0, len(steps), 2))
    axes.text((columns - 1) / 2, rows - 0.2, below, ha="center", va="top", fontsize="small")
    axes.set(xlim=(-0.6, columns - 0.4), ylim=(rows + 1.4, -0.6), aspect="equal")
    axes.set_title('Options in the order kept:\n"walk to this cell"', fontsize="medium")
    axes.axis("off")


def _square(row: int, column: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="white")


def _loose(figure: Any, results: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    easy, cells = results["loose"]["easy"], results["pruning"]["cells"]
    ks = sorted({cell["k"] for cell in cells} & {point["k"] for point in easy})
    hard = [np.mean([c["union_bound"] / c["samples"] for c in cells if c["k"] == k]) for k in ks]
    left.plot(
        [p["k"] for p in easy],
        [p["ratio"] for p in easy],
        "o-",
        color=ORANGE,
        label="one unsound option makes a subset bad",
    )
    left.plot(ks, hard, "o-", color=BLUE, label="only many unsound options do, as in (a)")
    left.set(
        title="Pruning: samples promised / samples needed",
        xlabel=r"$|Z_\epsilon|$, options that are needed",
        ylabel="bound / measured",
    )
    rows, tau = results["convergence"]["rows"], _mean_tau(results, "expert")
    for what, colour, label in (
        ("kept", ORANGE, "primitive actions kept and not needed"),
        ("pruned", BLUE, "only the options"),
    ):
        ratio = (table(rows, "expert", what, "bound") / table(rows, "expert", what, "below")).mean(1)
        right.plot(tau, ratio, "o-", color=colour, label=label)
    right.set(title="Value iteration: sweeps promised / sweeps needed", xlabel="mean duration of the options, steps")
    for axes, ticks in ((left, [point["k"] for point in easy]), (right, tau)):
        axes.axhline(1, color=GREY, lw=1, ls="--")
        axes.set(xscale="log", yscale="log", ylim=(0.7, 40))
        axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
        axes.set_yticks([1, 2, 5, 10, 20], ["1 = tight", "2", "5", "10", "20"])
        axes.minorticks_off()
        axes.legend(frameon=False, loc="upper left")
        _tidy(axes)
