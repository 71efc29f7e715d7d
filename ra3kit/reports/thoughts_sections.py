"""The thoughts of a run in words and tables: sections of its report, and a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ra3kit.reports.annotated import Annotated, Mark
from ra3kit.reports.curves import Curve
from ra3kit.reports.document import Block, Picture, Section, Table, can_draw
from ra3kit.reports.horizon_curves import logged_table
from ra3kit.reports.options import EPS, LEAST, R_MAX, Horizon, Options, horizon_of, sweeps_ratio
from ra3kit.reports.thoughts import Intent, common_cost, payoff_of

if TYPE_CHECKING:
    from ra3kit.reports.run_thoughts import RunThoughts, Sample

PICTURE = "thoughts.png"
FREQUENT = 15
"""Intents in the table."""
SHOWN = 6
"""Annotated snippets in the document."""
WIDEST = 30
"""Characters of a thought on the terminal and in the picture."""
UNITS = {"line_sum": "nats", "token_mean": "nats per token, summed over lines"}


def thoughts_sections(found: RunThoughts, curves: Mapping[str, Curve], gamma: float) -> list[Section]:
    """What a report says of a run's thoughts; nothing where no store can be read.

    Args:
        found: read from the run.
        curves: of the run, by tag.
        gamma: discount per line, between 0 and 1.
    """
    if not found.options:
        return []
    of_last = found.options[found.last]
    picture: list[Block] = [Picture(PICTURE, "gains, intents and horizon of the thoughts")] if can_draw() else []
    about = (
        f"Of the {int(of_last.of_thoughts.sum()):,} thoughts in the store of iteration {found.last} (counted from 0), "
        f"in {of_last.snippets:,} snippets. q writes a store at the end of an E-step; the M-step trains pi on it."
    )
    sections = [Section("Thoughts", [*picture, about])]
    if found.sample is not None:
        sections.append(Section("Thoughts that paid", paid_blocks(found.sample, of_last)))
    if found.intents:
        sections.append(Section("Most frequent intents", intents_blocks(found.intents)))
    sections.append(Section("Effective horizon", horizon_blocks(found.options, curves, gamma)))
    if found.sample is not None:
        sections.append(Section("Annotated snippets", [shown_snippets(found.sample)]))
    return sections


def paid_blocks(sample: Sample, options: Options) -> list[Block]:
    """The sample's thoughts, what they gained and what they cost."""
    payoff, cost = payoff_of(sample.worths), common_cost(sample.worths)
    unit = UNITS[sample.scale]
    thoughts, lines = int(options.of_thoughts.sum()), int(options.lines.sum())
    price = "" if cost is None else f" = {cost:.3g}"

    def between(name: str, form: str) -> str:
        low, high = payoff.intervals[name]
        return f"{low:{form}} to {high:{form}}" if payoff.snippets > 1 else "-"

    nats = [["mean gain, nats", f"{payoff.nats:+.3f}", ""]] if sample.scale != "line_sum" else []
    table = [
        ["", "value", "95 % interval"],
        ["thoughts weighed", f"{payoff.thoughts:,} in {payoff.snippets} of {sample.of:,} snippets with thoughts", ""],
        ["lines with a thought before them, of the store", f"{thoughts / lines:.1%}", ""],
        ["choices that are thoughts, of the store", f"{thoughts / max(1, options.choices):.1%}", ""],
        ["tokens of a thought, mean", f"{payoff.tokens:.1f}", ""],
        *nats,
        [f"mean gain, {unit}", f"{payoff.gain:+.3f}", between("gain", "+.3f")],
        [f"median gain, {unit}", f"{payoff.median:+.3f}", ""],
        [f"mean cost, {unit}", f"{payoff.cost:.3g}", ""],
        ["gained anything", f"{payoff.gained:.1%}", between("gained", ".1%")],
        [f"paid: gained more than the cost{price}", f"{payoff.paid:.1%}", between("paid", ".1%")],
        [f"mean net, {unit}", f"{payoff.net:+.3f}", between("net", "+.3f")],
    ]
    return [Table(table), reading(sample, cost)]


def reading(sample: Sample, cost: float | None) -> str:
    """What gain and cost are."""
    words = [
        "Gain: log-likelihood under the trained pi of the lines from a thought up to the next, with it minus without "
        "only it, all of these lines counted whole. Two things make it large: pi was trained on these very snippets; "
        "and without the thought the first token after it carries log pi(<act>), which a pi that expects a thought "
        "there makes small. What thoughts are worth on held-out code: the bounds of eval/*.",
        f"Prior: {sample.prior}.",
    ]
    if sample.scale == "token_mean":
        words.append(
            "The prior charges in nats per token of a line, so a thought's gain is compared as the sum over its lines "
            "of their mean gain per token; gained and paid are by that sum, the numbers beside snippets are nats."
        )
    if cost is None:
        words.append("What a thought costs differs from thought to thought; each is compared with its own cost.")
    if not sample.prior.startswith("fixed penalty"):
        words.append(
            "The cost is the prior's penalty with the thought minus without it, taken at log q = 0: what it charges on "
            "top for q's own probability is not kept in a store."
        )
    words.append("Intervals: bootstrap over snippets. They are about other snippets, not about other seeds.")
    return " ".join(words)


def intents_blocks(intents: Sequence[Intent]) -> list[Block]:
    """The most frequent intents."""
    rows = [["thought", "count", "share", "lines it covers", "mean gain, nats", "paid", "weighed"]]
    for intent in intents[:FREQUENT]:
        count, share, lines = f"{intent.count:,}", f"{intent.share:.1%}", f"{intent.lines:.2f}"
        rows.append([intent.text, count, share, lines, *_worth_of(intent), str(len(intent.worths))])
    total = sum(intent.count for intent in intents)
    once = sum(intent.count == 1 for intent in intents)
    text = (
        f"{len(intents):,} different texts in {total:,} thoughts, {once:,} of them once; the {len(rows) - 1} most "
        "frequent. Counted over the whole store; gains are those of the sample, of as many thoughts as were weighed."
    )
    return [text, Table(rows)]


def _worth_of(intent: Intent) -> list[str]:
    if not intent.worths:
        return ["-", "-"]
    paid = np.mean([worth.mark == "paid" for worth in intent.worths])
    return [f"{np.mean([worth.nats for worth in intent.worths]):+.2f}", f"{paid:.0%}"]


def horizon_blocks(options: Mapping[int, Options], curves: Mapping[str, Curve], gamma: float) -> list[Block]:
    """Durations and the horizon by annotated store, and as logged."""
    titles = [
        "store of iteration",
        "snippets",
        "lines a snippet",
        "choices a snippet",
        "options a snippet",
        "of thoughts",
    ]
    figures = ["tau, lines", "gbar, mean", "gbar, sup", "1/(1-gbar), mean", "1/(1-gbar), sup", "N ratio, mean", "sup"]
    rows = [[*titles, *figures]]
    for iteration, found in options.items():
        at = horizon_of(found, gamma)
        means = [f"{value:.2f}" for value in (at.lines, at.choices, at.options)]
        tau = [f"{at.thinking:.1%}", f"{at.tau:.2f}"]
        rows.append([str(iteration), f"{found.snippets:,}", *means, *tau, *_bounds(at, gamma)])
    words = [
        "An option is the lines from one thought up to the next. Lines before a snippet's first thought are one too, "
        "of no thought: where most are such, gbar is small because little is decided, not because intents last.",
        "Lines before which no latent may stand count as lines of the option they are in; choices are the latents that "
        "the posterior's rules let it choose. Snippets cut their last option, which makes gbar larger than it is.",
        f"gbar = E[gamma^tau], gamma = {gamma:g} per line, is what Theorem 3.6 takes the sup of over states and "
        "intents. The mean over options is therefore optimistic. The sup here is over intents that occur at least "
        f"{LEAST} times, each a mean over states, so still on that side; where rare intents are shorter, it is the "
        "mean.",
        f"Options of one line have 1/(1-gamma) = {1 / (1 - gamma):.4g}. N ratio: sweeps of value iteration that the "
        f"theorem asks for, over those for options of one line, with R_max {R_MAX:g} and eps {EPS:g}; it presumes that "
        "the primitive actions are pruned.",
    ]
    blocks: list[Block] = [Table(rows), " ".join(words)]
    logged = logged_table(curves, gamma)
    if len(logged) > 1:
        blocks += [
            "As logged, the first value to the last: by E-step over its rollouts, and of the thoughts that pi writes "
            "itself on held-out code, where it was measured. A mean duration only bounds gbar from below.",
            Table(logged),
        ]
    return blocks


def _bounds(at: Horizon, gamma: float) -> list[str]:
    both = (at.mean, at.sup)
    gbar = ["-" if value is None else f"{value:.4f}" for value in both]
    horizon = ["-" if value is None else f"{1 / (1 - value):.1f}" for value in both]
    return [*gbar, *horizon, *("-" if value is None else f"{sweeps_ratio(value, gamma):.3f}" for value in both)]


def shown_snippets(sample: Sample) -> Annotated:
    """Some of the sample, evenly spread over it."""
    count = min(SHOWN, len(sample.snippets))
    picked = np.linspace(0, len(sample.snippets) - 1, count).round().astype(int)
    legend: dict[Mark, str] = {
        "paid": "the thought gained more than it costs (solid edge)",
        "gained": "it gained, but not that much (dashed edge)",
        "lost": "it gained nothing, or made its lines less likely (dotted edge)",
    }
    return Annotated(legend, [sample.snippets[i] for i in picked])


# --- for the terminal ------------------------------------------------------------------------------------------------


def shortened(text: str) -> str:
    """The beginning of a thought, where there is not much room.

    >>> shortened("# sort the items by their second word")
    '# sort the items by their sec…'
    """
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def terminal_lines(found: RunThoughts, gamma: float) -> list[str]:
    """A few lines: what paid, what intents there are, how far they reach."""
    if not found.options:
        return []
    lines = [f"thoughts, in the store of iteration {found.last}"]
    if found.sample is not None:
        payoff = payoff_of(found.sample.worths)
        lines.append(
            f"  paid      {payoff.paid:.1%} of {payoff.thoughts} weighed; {payoff.gained:.1%} gained; mean gain "
            f"{payoff.gain:+.3f}, cost {payoff.cost:.3g}, net {payoff.net:+.3f} ({UNITS[found.sample.scale]})"
        )
    if found.intents:
        most = ", ".join(f"{shortened(intent.text)} ({intent.share:.1%})" for intent in found.intents[:3])
        lines.append(f"  intents   {len(found.intents):,} different; most frequent: {most}")
    at = horizon_of(found.options[found.last], gamma)
    gbar, horizon = f"gbar {at.mean:.4f}", f"1/(1-gbar) {1 / (1 - at.mean):.1f}"
    sup = "" if at.sup is None else f", sup {at.sup:.4f}"
    ratio = sweeps_ratio(at.mean, gamma)
    lines.append(
        f"  horizon   tau {at.tau:.2f} lines, {at.thinking:.1%} of the options of a thought; {gbar}{sup}; {horizon} of "
        f"{1 / (1 - gamma):.4g}; N ratio {ratio:.3f}"
    )
    return [*lines, ""]
