"""A run's results for people: a table, a Markdown report, a picture. All from `results.json`, never from memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ra3kit.guards import NO_THOUGHTS, WITHOUT_THOUGHTS, Finding

MEASURES = {"plain": "no thoughts", "own": "own thoughts", "iwae": "IWAE"}
KEYS = {"plain": "plain_ce", "own": "own_latents_ce", "iwae": "iwae_ce"}
CAVEAT = (
    "Nats per code token on held-out files, smaller is better. 'no thoughts' takes <act> everywhere; 'own thoughts' is "
    "the upper bound with the model's own draws, IWAE the tighter one; both bound the cross-entropy of the marginal, "
    "so they compare NTP and RA3 fairly. The base was taught the comment vocabulary by its warm-up."
)


def arms(results: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Scores by arm: the base (before the first E-step), NTP and RA3 (after the last M-step), where measured."""
    scores = results["scores"]
    out: dict[str, Mapping[str, float]] = {}
    before = [entry for entry in scores if entry["phase"] in ("start", "warmup")]
    if before:
        out["base"] = before[-1]["models"]["ra3"]
    after = [entry for entry in scores if entry["phase"] == "m"]
    if after:
        models = after[-1]["models"]
        out |= {
            name: models[key]
            for name, key in (("NTP", "ntp"), ("RA3", "ra3"), ("RA3, q", "posterior"))
            if key in models
        }
    return out


def difference(results: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    """RA3 minus NTP after the last M-step, with intervals, by measure; empty where there is no control."""
    after = [entry for entry in results["scores"] if "ra3_minus_ntp" in entry]
    return after[-1]["ra3_minus_ntp"] if after else {}


def table_lines(results: Mapping[str, Any]) -> list[str]:
    """The table that a run ends with."""
    width = 29
    titles = "".join(f"{title:>{width}}" for title in MEASURES.values())
    rows = [f"{'':10}{titles}{'thoughts':>10}{'tokens':>8}"]
    for name, scores in arms(results).items():
        cells = "".join(f"{scores[KEYS[measure]]:>{width}.4f}" for measure in MEASURES)
        length = f"{scores['thought_length']:.1f}" if scores["thought_rate"] else "-"
        rows.append(f"{name:10}{cells}{scores['thought_rate']:>10.1%}{length:>8}")
    gap = difference(results)
    if gap:
        cells = "".join(
            f"{gap[m]['mean']:+.4f} [{gap[m]['low']:+.4f}, {gap[m]['high']:+.4f}]".rjust(width) for m in MEASURES
        )
        rows.append(f"{'RA3 - NTP':10}{cells}   95 % intervals")
    return rows


def notes(results: Mapping[str, Any]) -> list[str]:
    """What a reader must know of this run: what the guards found, and that q has all but stopped thinking.

    The guards see the E-step's own snippets, this the held-out ones; when a guard has said it, it is not said again.
    """
    told = [str(Finding(**finding)) for finding in results.get("guards", ())]
    found = [finding for finding in told if finding not in results.get("stopped", "")]
    shown = arms(results)
    said = any(finding["name"] == "thought_rate_zero" for finding in results.get("guards", ()))
    if said or "base" not in shown or "RA3, q" not in shown:
        return found
    before, after = shown["base"]["thought_rate"], shown["RA3, q"]["thought_rate"]
    if after >= NO_THOUGHTS or before < NO_THOUGHTS:
        return found
    return [
        *found,
        f"The posterior has all but stopped thinking (thought rate {before:.1%} -> {after:.2%} on held-out code): "
        f"{WITHOUT_THOUGHTS}.",
    ]


def report_markdown(results: Mapping[str, Any]) -> str:
    """The report of a run."""
    data = results["data"]
    parts = [
        "# RA3 run",
        *([f"Stopped before its end: {results['stopped']}"] if "stopped" in results else []),
        f"Posterior {results['posterior']}; prior: {results['prior']}; seed {results['seed']}; "
        f"{results['eval_rollouts']} draws per held-out snippet.",
        f"Trained on {data['train_snippets']} snippets, {data['train_code_tokens']} code tokens ({data['path']}); "
        f"measured on {data['val_snippets']} snippets of {data['val_files']} held-out files.",
        "## Held-out code",
        "```\n" + "\n".join(table_lines(results)) + "\n```",
        *notes(results),
        CAVEAT,
        "## Annotated snippets",
        "Lines that begin with `>` are thoughts of q, with the nats they add to the lines up to the next thought.",
        *(f"```\n{sample}\n```" for sample in results["samples"][:8]),
    ]
    if "stopped" in results:
        return "\n\n".join(parts) + "\n"
    if importlib.util.find_spec("matplotlib") is None:
        parts.append("No picture: matplotlib is missing (`pip install 'ra3kit[plot]'`).")
    else:
        parts.insert(3, "![curves and scores](report.png)")
    return "\n\n".join(parts) + "\n"


def picture(results: Mapping[str, Any], path: Path) -> bool:
    """Draw the E-step, the M-step and the held-out scores; False where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    history = results["history"]
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    reward, loss, bars = figure.subplots(1, 3)
    _draw_e_steps(reward, history)
    _draw_m_steps(loss, history)
    _draw_scores(bars, results)
    figure.savefig(path, dpi=130)
    return True


COLOURS = {"base": "#9a9a9a", "NTP": "#d1813a", "RA3": "#2b6ca3", "RA3, q": "#8fb8d8"}


def _draw_e_steps(axes: Any, history: Mapping[str, Sequence[float]]) -> None:
    axes.plot(history["reward"], color=COLOURS["RA3"])
    axes.set(title="E-step", xlabel="update of q (all iterations)", ylabel="reward per line")
    rate = axes.twinx()
    rate.plot(history["thought_rate"], color="#5f9e6e", linestyle="--")
    rate.set_ylabel("thought rate (dashed)", color="#5f9e6e")
    rate.set_ylim(bottom=0)


def _draw_m_steps(axes: Any, history: Mapping[str, Sequence[float]]) -> None:
    if history["ntp_loss"]:
        axes.plot(history["ntp_loss"], color=COLOURS["NTP"], label="NTP")
    axes.plot(history["ra3_code_loss"], color=COLOURS["RA3"], label="RA3, given its thoughts")
    axes.set(
        title="M-step: cross-entropy of code", xlabel="optimizer step (all iterations)", ylabel="nats per code token"
    )
    axes.legend(frameon=False)


def _draw_scores(axes: Any, results: Mapping[str, Any]) -> None:
    shown = arms(results)
    axes.set(title="Held-out code (axis cut)", ylabel="nats per code token")
    if not shown:
        axes.set_title("Held-out code: nothing was held out")
        return
    width = 0.8 / len(shown)
    low = min(scores[key] for scores in shown.values() for key in KEYS.values())
    high = max(scores[key] for scores in shown.values() for key in KEYS.values())
    for i, (name, scores) in enumerate(shown.items()):
        values = [scores[KEYS[measure]] for measure in MEASURES]
        at = [j + (i - (len(shown) - 1) / 2) * width for j in range(len(MEASURES))]
        axes.bar(at, values, width * 0.92, label=name, color=COLOURS[name])
    axes.set_xticks(range(len(MEASURES)), MEASURES.values())
    axes.set_ylim(low - 0.25 * (high - low) - 0.01, high + 0.35 * (high - low) + 0.01)  # the axis does not begin at 0
    gap = difference(results)
    if gap:
        text = "{mean:+.4f} [{low:+.4f}, {high:+.4f}]".format(**gap["iwae"])
        axes.set_xlabel(f"RA3 - NTP by IWAE, 95 % interval:\n{text}", fontsize="small")
    axes.legend(frameon=False, ncols=len(shown), loc="upper center", fontsize="small")
