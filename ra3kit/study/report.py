"""The report of a study: results.json, report.md, one HTML file with its pictures inside, and the pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ra3kit.reports.curves import mean_band, running_mean
from ra3kit.reports.document import (
    NO_PICTURE,
    Block,
    Code,
    Items,
    Picture,
    Section,
    Table,
    as_html,
    as_markdown,
    can_draw,
    made_table,
)
from ra3kit.reports.panels import COLOURS
from ra3kit.study.files import write_json
from ra3kit.study.measures import MEASURES

SCORES, REWARDS, COSTS, SWEEPS = "scores.png", "rlvr.png", "cost.png", "sweeps.png"
HTML, MARKDOWN, JSON = "report.html", "report.md", "results.json"
ROLES = {"base": COLOURS[7], "ntp": COLOURS[1], "ra3": COLOURS[0], "oracle": COLOURS[2]}
OTHER = "#b9bec5"
SMOOTH = 5
"""Steps of the running mean of rewards."""

COLUMNS = {
    "Scores on the tasks": ("pass@1", "pass@5", "greedy", "compiling", "cut"),
    "Held-out code (less is better)": ("m_step", "plain_line", "own_line", "iwae_line"),
    "The model's own thoughts, on held-out code": (
        *("thought_rate", "thought_length", "nmi", "precision", "recall", "named"),
    ),
    "Thoughts in the annotated corpus": ("q_nmi", "q_precision", "q_recall", "q_named"),
    "RLVR": ("area", "reached", "asymptote"),
    "Cost of training": ("cpu_seconds", "wall_seconds", "trained_tokens", "sampled_tokens"),
}
"""Tables of arms: title -> measures."""
SWEPT = {
    "c": "The penalty c",
    "programs": "The amount of expert data",
    "steps": "Next-token prediction for longer",
}
"""Sweep -> title."""


def write_report(folder: Path, found: Mapping[str, Any]) -> None:
    """Write all of it into a folder; each file is replaced whole, results.json last."""
    pictures = draw(folder, found) if can_draw() else []
    sections = sections_of(found, pictures)
    for name, text in ((MARKDOWN, as_markdown(sections)), (HTML, as_html(sections, folder))):
        temporary = folder / f"{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)
    write_json(folder / JSON, found)


# --- words -----------------------------------------------------------------------------------------------------------


def sections_of(found: Mapping[str, Any], pictures: Sequence[Picture]) -> list[Section]:
    """The document."""
    return [
        Section(title(found), [*opening(found), *pictures, *([] if pictures or can_draw() else [NO_PICTURE])]),
        Section("What was claimed before the run", [claims_table(found["claims"]), READING]),
        Section("Where RA3 does not help", where_not(found)),
        *(Section(name, [arms_table(found, keys)]) for name, keys in COLUMNS.items()),
        Section("RA3 beside the other arms", [claims_table(found["beside"]), UNCLAIMED]),
        Section("The gate", gate_blocks(found)),
        Section("Every seed", [seeds_table(found)]),
        *sweep_sections(found),
        Section("The arms", [Table([["arm", "starts from", "recipe", "what it is"], *arm_rows(found)])]),
        Section("The regime", [regime_table(found)]),
        Section("The commands", [Code("\n".join(commands(found)))]),
        Section("How it was made", [made_by(found), "This document:", made_table()]),
    ]


READING = (
    "A gain is positive where the first arm is the better one, also where less is better. Interval: 95 %, Student's t "
    "over seeds, each a world with a base of its own. d: mean gain by the standard deviation of the gains. p: "
    "two-sided, all flips of the gains' signs; with n seeds never below 2^(1-n). All: the mean gain with the seeds "
    "that the gate leaves out."
)


UNCLAIMED = (
    "Shown, not claimed, and so without a correction for how many comparisons these are. Arms of mid-training are "
    "compared with those of mid-training, and GRPO with GRPO."
)


def title(found: Mapping[str, Any]) -> str:
    """Of the document."""
    name = found["study"]["preset"]
    return f"Study, preset {name}" + (": a smoke run" if found["smoke"] else "")


def opening(found: Mapping[str, Any]) -> list[Block]:
    """What a reader must know before any figure."""
    done, wanted = found["complete"]
    about, split = found["study"], found["study"]["split"]
    blocks: list[Block] = []
    if found["smoke"]:
        blocks.append("A smoke run: it shows that everything works, and nothing about the claims.")
    if done < wanted:
        blocks.append(f"Not complete: {done} of {wanted} arms are here.")
    seeds = found["gate"]["in"]
    where = "test tasks" if split == "test" else "val tasks, for development: no result to report"
    blocks.append(
        f"{len(about['seeds'])} seeds, of which {len(seeds)} count for the claims "
        f"({', '.join(map(str, seeds)) or 'none'}). Scores on {where}. Begun {about['begun']} UTC."
    )
    return [*blocks, found["caveat"]]


def claims_table(claims: Sequence[Mapping[str, Any]]) -> Table:
    """A row a claim, those that nothing was measured for left out."""
    titles = ["claim", "measure", "gain", "95 %", "d", "seeds for : against", "p", "target", "all", "verdict"]
    rows = [titles]
    for claim in claims:
        if claim["gated"] is None and claim["all"] is None:
            continue
        name = claim["about"] or f"{claim['ours']} > {claim['theirs']}"
        cells = [name, MEASURES[claim["measure"]].title, *gain_cells(claim["gated"], claim["measure"])]
        target = "-" if claim["target"] is None else shown(claim["target"], claim["measure"], True)
        everyone = "-" if claim["all"] is None else shown(claim["all"]["mean"], claim["measure"], True)
        rows.append([*cells, target, everyone, claim["verdict"]])
    return Table(rows)


def gain_cells(found: Mapping[str, Any] | None, measure: str) -> list[str]:
    """Mean, interval, effect size, seeds on either side, p."""
    if found is None:
        return ["-"] * 5
    low, high = (shown(found[end], measure, True) for end in ("low", "high"))
    d_z = found["d_z"]
    return [
        shown(found["mean"], measure, True),
        "-" if math.isnan(found["low"]) else f"[{low}, {high}]",
        "-" if math.isnan(d_z) else f"{d_z:.1f}",
        f"{found['above']} : {found['below']}",
        f"{found['p']:.2g}",
    ]


def shown(value: float, measure: str, signed: bool = False) -> str:
    """A value, or a difference, in the unit of its measure: points where it is a share shown in percent.

    >>> shown(0.123, "pass@1"), shown(0.123, "pass@1", True), shown(0.0456, "iwae_line", True)
    ('12.3 %', '+12.3', '+0.046')
    """
    sign = "+" if signed else ""
    if MEASURES[measure].percent:
        return f"{100 * value + 0.0:{sign}.1f}" + ("" if signed else " %")
    return f"{value:{sign},.0f}" if abs(value) >= 100 else f"{value + 0.0:{sign}.3f}"


def where_not(found: Mapping[str, Any]) -> list[Block]:
    """Every comparison in which RA3 is not shown to be the better one."""
    lines = []
    compared = [claim for claim in [*found["claims"], *found["beside"]] if claim["gated"] is not None]
    if all(claim["verdict"].startswith("not judged") for claim in compared):
        return ["Nothing is judged: there are too few seeds to tell."]
    for claim in compared:
        gated = claim["gated"]
        ours = claim["ours"].removeprefix("grpo-from-")
        if ours != "ra3" or gated["low"] > 0 or claim["verdict"].startswith("not judged"):
            continue
        gap = shown(gated["mean"], claim["measure"], True)
        low, high = (shown(gated[end], claim["measure"], True) for end in ("low", "high"))
        interval = "" if math.isnan(gated["low"]) else f" [{low}, {high}]"
        side = "worse than" if gated["high"] < 0 else "not told apart from"
        line = f"{claim['ours']} is {side} {claim['theirs']} by {MEASURES[claim['measure']].title}: {gap}{interval}"
        if line not in lines:
            lines.append(line)
    lines += [
        f"with {x:g} expert programs ra3 is not ahead of ntp by pass@1: {listed(gaps, 'pass@1', True)}"
        for x, gaps in gaps_by_programs(found, "pass@1")
        if np.mean(gaps) <= 0
    ]
    lines += [
        f"{arm} has lost its thoughts ({shown(rate, 'thought_rate')} of the lines): next-token prediction is left"
        for arm, rate in silent(found)
    ]
    return [Items(lines)] if lines else ["Nowhere among the arms that are here."]


def arms_table(found: Mapping[str, Any], keys: Sequence[str]) -> Table:
    """A row an arm: means over the gated seeds, with half the 95 % interval."""
    rows = [["arm", "seeds", *(MEASURES[key].title for key in keys)]]
    for arm, values in found["table"].items():
        if not any(key in values for key in keys) or found["arms"][arm]["sweep"]:
            continue
        seeds = max(len(values[key]["values"]) for key in keys if key in values)
        rows.append([arm, str(seeds), *(cell(values.get(key), key, seeds) for key in keys)])
    return Table(rows)


def cell(entry: Mapping[str, Any] | None, measure: str, seeds: int = 0) -> str:
    """Mean and half-width; of fewer than so many seeds, how many: the others may never have reached a threshold."""
    if entry is None:
        return "-"
    half = "" if entry["half"] is None else f" ± {shown(entry['half'], measure).removesuffix(' %')}"
    few = f" ({len(entry['values'])} of {seeds} seeds)" if len(entry["values"]) < seeds else ""
    return f"{shown(entry['mean'], measure)}{half}{few}"


def gate_blocks(found: Mapping[str, Any]) -> list[Block]:
    """Which seeds count, and the results of the others."""
    gate = found["gate"]
    rows = [["seed", "thoughts of the base that name the intent", "counts for the claims"]]
    rows += [
        [s, "-" if v is None else f"{v:.1%}", "yes" if int(s) in gate["in"] else "no"]
        for s, v in gate["by_seed"].items()
    ]
    blocks: list[Block] = [
        f"A seed counts where at least {gate['least']:.0%} of the base's own thoughts on held-out expert programs name "
        "the intent of the line they stand before. It was fixed before the run.",
        Table(rows),
    ]
    if gate["out"]:
        keys = ("pass@1", "greedy", "iwae_line", "area")
        out = [[arm, *(cell(v.get(k), k) for k in keys)] for arm, v in found["table_out"].items() if v]
        blocks += [f"Means of the seeds left out ({', '.join(map(str, gate['out']))}):"]
        blocks += [Table([["arm", *(MEASURES[k].title for k in keys)], *out])]
    return blocks


def seeds_table(found: Mapping[str, Any]) -> Table:
    """pass@1 of every arm on every seed, gated or not."""
    seeds = list(found["results"])
    rows = [["pass@1", *(f"seed {seed}" for seed in seeds)]]
    for arm in found["arms"]:
        values = [found["results"][seed].get(arm) for seed in seeds]
        if any(values):
            rows.append([arm, *("-" if v is None else shown(v["sampled"]["pass@1"], "pass@1") for v in values)])
    return Table(rows)


def sweep_sections(found: Mapping[str, Any]) -> list[Section]:
    """A table a sweep, with the main arms in their places."""
    sections = []
    keys = ("pass@1", "greedy", "iwae_line", "thought_rate", "thought_length", "cpu_seconds")
    table, seeds = found["sweeps"]["table"], ", ".join(map(str, found["sweeps"]["seeds"]))
    for sweep, about in SWEPT.items():
        places = sweep_places(found, sweep)
        if len(places) < 2:
            continue
        rows = [["arm", sweep, *(MEASURES[key].title for key in keys)]]
        rows += [[arm, f"{x:g}", *(each_seed(table[arm].get(key), key) for key in keys)] for x, arm in places]
        blocks: list[Block] = [Table(rows), f"Means over the seeds that were swept and count: {seeds}."]
        gaps = {key: dict(gaps_by_programs(found, key)) for key in GAPS} if sweep == "programs" else {}
        if any(gaps.values()):
            head = ["expert programs", *(f"ra3 over ntp, {MEASURES[key].title}" for key in GAPS)]
            where = sorted({x for by_x in gaps.values() for x in by_x})
            cells = [[listed(gaps[key].get(x), key, True) for key in GAPS] for x in where]
            blocks += [Table([head, *([f"{x:g}", *row] for x, row in zip(where, cells, strict=True))])]
        sections.append(Section(about, blocks))
    return sections


SILENT = 0.05
"""An arm of RA3 with thoughts at fewer lines than this has all but lost them."""


def silent(found: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(arm of RA3, share of lines it thinks at) of those whose thoughts are gone: a reason for what they score."""
    rates = {
        arm: values.get("thought_rate", {}).get("mean")
        for arm, values in found["table"].items()
        if "ra3" in found["arms"][arm]["recipe"]
    }
    return [(arm, rate) for arm, rate in rates.items() if rate is not None and rate < SILENT]


GAPS = ("pass@1", "greedy", "iwae_line")
"""What RA3 and NTP are compared by in a sweep."""


def each_seed(entry: Mapping[str, Any] | None, measure: str) -> str:
    """Mean and the value of each seed, in their order: an interval of two or three seeds says nothing."""
    return "-" if entry is None else listed(list(entry["values"].values()), measure)


def listed(values: Sequence[float] | None, measure: str, signed: bool = False) -> str:
    """Their mean, and each.

    >>> listed([0.1, 0.2], "pass@1"), listed([-0.007, -0.003], "pass@1", True), listed([2.0], "iwae_line")
    ('15.0 % (10.0, 20.0)', '-0.5 (-0.7, -0.3)', '2.000')
    """
    if not values:
        return "-"
    parts = ", ".join(shown(value, measure, signed).removesuffix(" %") for value in values)
    return shown(float(np.mean(values)), measure, signed) + (f" ({parts})" if len(values) > 1 else "")


def gaps_by_programs(found: Mapping[str, Any], measure: str) -> list[tuple[float, list[float]]]:
    """(expert programs, how far RA3 is ahead of NTP on each seed that was swept), from few to many."""
    table = found["sweeps"]["table"]
    by_x: dict[float, dict[str, Mapping[str, float]]] = {}
    for x, arm in sweep_places(found, "programs"):
        by_x.setdefault(x, {})[arm.partition("-")[0]] = table[arm].get(measure, {}).get("values", {})
    sign = -1 if MEASURES[measure].higher is False else 1
    gaps = {
        x: [sign * (value - of["ntp"][seed]) for seed, value in of["ra3"].items() if seed in of["ntp"]]
        for x, of in by_x.items()
        if {"ra3", "ntp"} <= of.keys()
    }
    return [(x, each) for x, each in sorted(gaps.items()) if each]


def sweep_places(found: Mapping[str, Any], sweep: str) -> list[tuple[float, str]]:
    """(place on the axis, arm) of a sweep's arms that have results, the main arms among them; none without a sweep."""
    own = [(about["x"], name) for name, about in found["arms"].items() if about["sweep"] == sweep]
    regime = found["study"]["regime"]
    main = {
        "c": {"ra3": regime["c"]},
        "programs": {"ntp": regime["programs"], "ra3": regime["programs"]},
        "steps": {"ntp": regime["steps"], "ntp-compute": regime["compute_steps"]},
    }[sweep]
    table = found["sweeps"]["table"]
    places = [*own, *((x, name) for name, x in main.items())] if any(table.get(name) for _, name in own) else []
    return sorted((x, name) for x, name in places if table.get(name))


def arm_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Name, start, recipe and description of the arms."""
    return [[name, a["after"] or "-", a["recipe"], a["about"]] for name, a in found["arms"].items()]


def regime_table(found: Mapping[str, Any]) -> Table:
    """Its numbers; the reasons stand in `ra3kit/study/regime.py`."""
    regime = {key: value for key, value in found["study"]["regime"].items() if value not in ("", [], ())}
    return Table([["number", "value"], *([key, str(value)] for key, value in regime.items())])


def made_by(found: Mapping[str, Any]) -> str:
    """When the study was begun, and every version and commit that it was run or gone on with."""
    kits = [
        f"{one.get('version', '?')} {str(one.get('commit', ''))[:12]}" + (", changed" if one.get("changed") else "")
        for one in found["study"].get("kits", ())
    ]
    return f"The arms: begun {found['study']['begun']} UTC, run with ra3kit {'; '.join(map(str.strip, kits)) or '?'}."


def commands(found: Mapping[str, Any]) -> list[str]:
    """The study's own, and those it ran for the arms of the first seed."""
    lines = list(dict.fromkeys(found["study"]["commands"]))
    seeds = list(found["results"])
    if seeds:
        lines += ["", f"# seed {seeds[0]}; those of the others differ in the seed"]
        for result in found["results"][seeds[0]].values():
            lines += [f"# {result['arm']}", *result["commands"].values()]
    return lines


# --- pictures --------------------------------------------------------------------------------------------------------


def draw(folder: Path, found: Mapping[str, Any]) -> list[Picture]:
    """Draw what there is to draw; the pictures in their order. Needs matplotlib."""
    makers = {
        SCORES: (draw_scores, "pass@1 of every arm: a dot a seed, a bar their mean"),
        REWARDS: (draw_rewards, "reward of GRPO by step: mean over seeds and 95 % t-interval"),
        COSTS: (draw_costs, "pass@1 by CPU seconds of training"),
        SWEEPS: (draw_sweeps, "sweeps over the penalty c, the amount of expert data and the steps of NTP"),
    }
    pictures = []
    for name, (make, about) in makers.items():
        if make(folder / name, found):
            pictures.append(Picture(name, about))
    return pictures


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False).ravel())


def colour(arm: str) -> str:
    """Of an arm: one for the base, NTP, RA3 and the upper bound each, also of what starts from them; else grey."""
    return ROLES.get(arm.removeprefix("grpo-from-").partition("-")[0], OTHER)


def _main_arms(found: Mapping[str, Any]) -> list[str]:
    return [a for a, values in found["table"].items() if "pass@1" in values and not found["arms"][a]["sweep"]]


def draw_scores(path: Path, found: Mapping[str, Any]) -> bool:
    """Sampled and greedy pass@1 of the arms on the gated seeds."""
    arms = _main_arms(found)
    if not arms:
        return False
    figure, panels = _figure(10, 0.42 * len(arms) + 1.2, 2)
    for axes, key in zip(panels, ("pass@1", "greedy"), strict=True):
        for row, arm in enumerate(arms):
            entry = found["table"][arm][key]
            axes.barh(row, entry["mean"], color=colour(arm), alpha=0.45, height=0.6)
            axes.plot(list(entry["values"].values()), [row] * len(entry["values"]), "o", color="#3a4048", markersize=3)
            if entry["half"] is not None:
                axes.errorbar(entry["mean"], row, xerr=entry["half"], color="#3a4048", capsize=3, linewidth=1)
        axes.set(title=f"{MEASURES[key].title}, sampled" if key == "pass@1" else "pass@1, greedy", xlim=(0, 1))
        axes.set_yticks(range(len(arms)), arms if key == "pass@1" else [""] * len(arms))
        axes.invert_yaxis()
    figure.savefig(path, dpi=130)
    return True


def draw_rewards(path: Path, found: Mapping[str, Any]) -> bool:
    """Running mean of the reward of each arm of GRPO."""
    curves: dict[str, list[np.ndarray]] = {}
    for seed in found["gate"]["in"]:
        for arm, result in found["results"][str(seed)].items():
            if "rlvr" in result:
                rewards = np.array(result["rlvr"]["rewards"])
                curves.setdefault(arm, []).append(running_mean(np.arange(len(rewards)), rewards, SMOOTH))
    if not curves:
        return False
    figure, (axes,) = _figure(7, 4)
    for arm, rows in curves.items():
        length = min(map(len, rows))
        mean, half = mean_band(np.array([row[:length] for row in rows]))
        axes.plot(mean, color=colour(arm), label=arm)
        axes.fill_between(np.arange(length), mean - half, mean + half, color=colour(arm), alpha=0.2)
    axes.set(xlabel="optimizer step", ylabel=f"reward, running mean of {SMOOTH} steps", ylim=(0, 1))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    return True


def draw_costs(path: Path, found: Mapping[str, Any]) -> bool:
    """Score by cost, of the arms that start from the base."""
    arms = [a for a in _main_arms(found) if found["arms"][a]["after"] == "base" and not a.startswith("grpo")]
    if not arms:
        return False
    figure, (axes,) = _figure(7, 4)
    for arm in arms:
        x, y = found["table"][arm]["cpu_seconds"]["mean"], found["table"][arm]["pass@1"]["mean"]
        axes.plot([x], [y], "o", color=colour(arm))
        axes.annotate(arm, (x, y), textcoords="offset points", xytext=(6, 3), fontsize=9)
    axes.set(
        xlabel="CPU seconds of training", ylabel="pass@1, sampled", ylim=(0, 1), xlim=(0, 1.2 * axes.get_xlim()[1])
    )
    figure.savefig(path, dpi=130)
    return True


def draw_sweeps(path: Path, found: Mapping[str, Any]) -> bool:
    """Score and thought rate by c; score by expert programs; score by steps of NTP, with RA3's as a level."""
    table = found["sweeps"]["table"]
    places = {sweep: sweep_places(found, sweep) for sweep in SWEPT}
    if all(len(swept) < 2 for swept in places.values()):
        return False
    figure, panels = _figure(12, 3.6, 3)

    def line(axes: Any, of: str, arms: Sequence[tuple[float, str]], key: str, label: str, style: str = "o-") -> None:
        points = [(x, table[arm][key]["mean"]) for x, arm in arms if key in table[arm]]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=colour(of), label=label)
            each = [(x, value) for x, arm in arms if key in table[arm] for value in table[arm][key]["values"].values()]
            axes.plot(*zip(*each, strict=True), ".", color=colour(of), alpha=0.5, markersize=4)

    line(panels[0], "ra3", places["c"], "pass@1", "pass@1")
    line(panels[0], "ra3", places["c"], "thought_rate", "thought rate", "o:")
    for of in ("ntp", "ra3"):
        line(panels[1], of, [(x, arm) for x, arm in places["programs"] if arm.startswith(of)], "pass@1", of)
    line(panels[2], "ntp", places["steps"], "pass@1", "ntp")
    if "pass@1" in table.get("ra3", {}):
        panels[2].axhline(table["ra3"]["pass@1"]["mean"], color=colour("ra3"), linestyle="--", label="ra3")
    swept = sorted({x for x, _ in places["c"]})
    panels[0].set_xscale("symlog", linthresh=0.25)
    panels[0].set_xticks(swept, [f"{x:g}" for x in swept])
    labels = ("c, nats on a line's sum", "expert programs", "optimizer steps")
    for axes, sweep, label in zip(panels, SWEPT, labels, strict=True):
        axes.set(
            title=SWEPT[sweep], xlabel=label, ylabel="pass@1, sampled" if axes is not panels[0] else "", ylim=(0, 1)
        )
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    return True
