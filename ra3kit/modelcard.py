"""The model card of an exported model: what it is, how to use it, what made it, and what was measured.

Only what a run has written down is stated. A licence is not: the kit can't know it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ra3kit import __version__
from ra3kit.evaluation.prompts import SPECIAL, STOPS
from ra3kit.guards import Finding
from ra3kit.reports.ra3 import CAVEAT, arms, notes, table_lines

PAPER = "[RA3, Reasoning as Action Abstractions](https://arxiv.org/abs/2509.25810)"
ROWS = {"pi": "RA3", "q": "RA3, q", "ntp": "NTP"}
"""What the models are called in the table of scores."""

STRIP = 'code = re.sub(r"(?m)^#.*\\n", "", code)'
"""Takes thoughts out of a text: every comment line at column 0."""


@dataclass(frozen=True)
class Facts:
    """What is known of an exported model. Mappings are {} where the run has written nothing.

    Args:
        name: of the folder.
        which: "pi", "q" or "ntp".
        architecture, parameters, dtype, context: of the model; context in tokens, where its config says.
        start_token, end_token: texts of the tokens a training sequence began and ended with.
        tree: the recipe, resolved; recipe: its text, without secrets.
        command: that exported it.
        checkpoint: its `about.json`.
        provenance: of the run.
        results: the run's `results.json`.
        evaluations: "benchmark/step" -> its results.
        weights: file -> SHA-256.
    """

    name: str
    which: str
    architecture: str
    parameters: int
    dtype: str
    context: int | None
    start_token: str
    end_token: str
    tree: Mapping[str, Any]
    recipe: str | None
    command: str
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def policy(self) -> Mapping[str, Any]:
        """The recipe's policy."""
        model = self.tree.get("model") or {}
        return model.get("policy") or model

    @property
    def is_ra3(self) -> bool:
        """Whether the run was one of RA3, and not of next-token prediction alone."""
        return "posterior" in (self.tree.get("model") or {}) or "posterior" in self.results

    @property
    def is_rlvr(self) -> bool:
        """Whether the run was one of GRPO."""
        return self.results.get("stage") == "rlvr" or self.checkpoint.get("phase") == "rlvr"

    @property
    def thinks(self) -> bool:
        """Whether the model was meant to write thoughts."""
        return self.is_ra3 and self.which != "ntp"

    @property
    def data(self) -> Mapping[str, Any]:
        """The account of the data: the run's own, else what the checkpoint says."""
        in_record = (self.provenance.get("data") or {}).get("data_hash") and self.provenance["data"]
        return self.results.get("data") or in_record or self.checkpoint.get("data") or {}


def model_card(facts: Facts, sizes: Mapping[str, int]) -> str:
    """README.md.

    Args:
        facts: of the model.
        sizes: bytes of the files of weights.
    """
    sections = {
        "": _opening(facts),
        "Use": _use(facts),
        "Thoughts": _thoughts(facts),
        "Reward": _reward(facts),
        "Scores": _scores(facts),
        "Training data": _data(facts),
        "How it was made": _made(facts),
        "Limitations": _limitations(facts),
        "Files": _files(facts, sizes),
    }
    parts = [f"# {facts.name}"]
    for title, lines in sections.items():
        if content := list(lines):
            parts += [*([f"## {title}"] if title else []), *content]
    return f"---\n{front_matter(facts)}---\n\n" + "\n\n".join(parts) + "\n"


def front_matter(facts: Facts) -> str:
    """The card's metadata as the hub reads it. No licence is stated: whoever publishes the model has to know it."""
    tags = ["code", "ra3kit", *({"pi": ["ra3"], "q": ["ra3", "ra3-posterior"], "ntp": []}[facts.which])]
    data: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}
    if not facts.is_ra3 and "ra3" in tags:
        tags.remove("ra3")
    tags += ["rlvr", "grpo"] if facts.is_rlvr else []
    if is_hub_id(base := facts.policy.get("model")):
        data["base_model"] = base
    paths = ((facts.tree.get("data") or {}).get(name) for name in ("path", "warmup_path"))
    if found := [name for path in paths for name in hub_datasets(path)]:
        data["datasets"] = list(dict.fromkeys(found))
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def is_hub_id(name: Any) -> bool:
    """Whether a model's name can be one of the hub: `owner/name`, and no folder here."""
    return isinstance(name, str) and bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)) and not Path(name).exists()


def hub_datasets(path: Any) -> list[str]:
    """The hub's datasets among the sources of a corpus.

    >>> hub_datasets(["hf:bigcode/the-stack:python:split=train", "data/*.parquet"])
    ['bigcode/the-stack']
    """
    sources = [path] if isinstance(path, str) else path or []
    return [str(source).split(":")[1] for source in sources if str(source).startswith("hf:")]


# --- sections --------------------------------------------------------------------------------------------------------


def _opening(facts: Facts) -> Iterator[str]:
    if forced := forced_line(facts):
        yield forced
    what = {
        "pi": "the policy, which writes code and the thoughts before it",
        "q": "the posterior, which annotated the corpus: it was trained to write thoughts, not code",
        "ntp": "the control: trained by next-token prediction on the same snippets in the same order, without thoughts",
    }[facts.which]
    how = f"mid-trained with {PAPER}; this is {what}" if facts.is_ra3 else "mid-trained by next-token prediction"
    if facts.is_rlvr:
        start = facts.policy.get("model")
        of = f", starting from `{start}`" if start else ""
        how = f"post-trained by GRPO on programs that were run and judged (RLVR){of}"
    about = facts.checkpoint
    when = ""
    if "step" in about:
        phase = f", phase {about['phase']} of iteration {about.get('iteration', 0)}" if facts.is_ra3 else ""
        when = f" Taken after optimizer step {about['step']}{phase}."
    yield f"A language model of code, {how}. Made with ra3kit {__version__}.{when}"
    context = f", context {facts.context} tokens" if facts.context else ""
    yield f"{facts.architecture}, {facts.parameters:,} parameters, {facts.dtype}{context}."


def forced_line(facts: Facts) -> str:
    """That it was trained on evaluation data, where it was; "" where it was not."""
    if found := facts.data.get("evaluation_forced"):
        named = ", ".join(f"{count} problems of {name}" for name, count in found.items())
        return f"**It was trained on evaluation data: {named}. Its scores on these sets mean nothing.**"
    unknown = facts.is_rlvr and "evaluation_forced" not in facts.data
    if unknown and (facts.tree.get("data") or {}).get("force"):
        return "**Its recipe allows training on evaluation data (`data.force`): scores on such sets may mean nothing.**"
    return ""


def _use(facts: Facts) -> Iterator[str]:
    yield f"""It loads like any other model, without ra3kit:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{facts.name}")
tokenizer = AutoTokenizer.from_pretrained("{facts.name}")
prompt = "def mean(values):\\n"
ids = [tokenizer.convert_tokens_to_ids("{facts.start_token}"), *tokenizer.encode(prompt, add_special_tokens=False)]
```"""
    stops = [stop for stop in STOPS["function"] if stop not in SPECIAL]
    yield (
        f"Training sequences began with `{facts.start_token}` and ended with `{facts.end_token}`: begin a prompt with "
        "it, as above, and end it with a line end. It completes code and follows no instructions. It goes on after a "
        "function is finished: `generate(..., tokenizer=tokenizer, stop_strings=[...])` with "
        f"{', '.join(f'`{stop!r}`' for stop in stops)} ends a function's body."
    )
    yield f"""With ra3kit:

```bash
ra3kit eval --model {facts.name} --benchmark humaneval+ n=20 temperature=0.8 k=1,10
ra3kit annotate {facts.name} my/code.py
```"""


def _thoughts(facts: Facts) -> Iterator[str]:
    if not facts.thinks:
        return
    posterior = (facts.tree.get("model") or {}).get("posterior") or {}
    longest = f", {posterior['max_length']} tokens at most" if "max_length" in posterior else ""
    yield (
        f"A thought is a comment line at column 0 before a line of code{longest}. Nothing has to be done to get them: "
        "the model writes them by itself when it is sampled. They are ordinary comments; the program is the same "
        "without them. This takes them out, with every other comment line at column 0:"
    )
    yield f"```python\n{STRIP}\n```"
    yield "Inside a string of several lines that would be wrong; `ra3kit.data.comments.strip_comments` knows strings."
    shown = arms(facts.results).get(ROWS[facts.which]) if facts.results.get("scores") else None
    if shown:
        length = f", {shown['thought_length']:.1f} tokens in the mean" if shown["thought_rate"] else ""
        yield (
            f"On held-out code it thinks before {shown['thought_rate']:.2%} of the lines that could have a "
            f"thought{length}."
        )
    samples: Sequence[str] = facts.results.get("samples") or ()
    if samples:
        yield (
            "Snippets of the training corpus as the posterior annotated them for the last M-step; lines that begin "
            "with `>` are thoughts, with the nats they add to the log-likelihood of the lines up to the next thought:"
        )
        yield from (f"```text\n{sample}\n```" for sample in samples[:3])


def _reward(facts: Facts) -> Iterator[str]:
    if not facts.is_rlvr:
        return
    model = facts.tree.get("model") or {}
    settings = dict(facts.results.get("settings") or {}) or {
        name: value for name, value in model.items() if isinstance(value, int | float | str) and name != "class_path"
    }
    reward = model.get("reward") or {"class_path": facts.results.get("reward")}
    rows: dict[str, Any] = {"reward": str(reward.get("class_path") or "VerifierReward").rpartition(".")[2]}
    rows |= {f"reward: {name}": value for name, value in reward.items() if name != "class_path"}
    rows |= {"isolation": facts.results.get("isolation"), **settings}
    yield _table(rows)
    for name, curve in (facts.results.get("history") or {}).items():
        known = [value for value in curve if value is not None]
        if name in ("reward", "pass_rate") and known:
            part = max(1, len(known) // 10)
            first, last = (sum(values) / part for values in (known[:part], known[-part:]))
            yield (
                f"{name.replace('_', ' ').capitalize()} of sampled answers to the training problems, mean over {part} "
                f"of {len(curve)} steps: {first:.3f} at the beginning, {last:.3f} at the end."
            )


def _table(rows: Mapping[str, Any]) -> str:
    kept = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join(["| | |", "|---|---|", *kept])


def _scores(facts: Facts) -> Iterator[str]:
    if facts.results.get("scores"):
        row = ROWS[facts.which]
        yield f"Held-out code, nats per code token; this model is the row {row!r}."
        yield "```text\n" + "\n".join(table_lines(facts.results)) + "\n```"
        yield from notes(facts.results)
        yield CAVEAT
        last, step = facts.results["scores"][-1].get("step"), facts.checkpoint.get("step")
        if None not in (last, step) and last != step:
            yield f"They were measured at step {last}; this model was taken at step {step}."
    elif (metrics := facts.results.get("metrics")) and not facts.is_rlvr:
        shown = {name: value for name, value in metrics.items() if name.startswith("eval/")}
        if shown:
            yield "\n".join(["| metric | value |", "|---|---|", *(f"| {k} | {v:.4f} |" for k, v in shown.items())])
            yield "Nats per code token of held-out files, end token included."
    if facts.evaluations:
        rows = [row for name, found in facts.evaluations.items() for row in _evaluation_rows(name, found)]
        yield "\n".join(
            ["| benchmark | step | score | value [95 % interval] | tasks | n |", "|---|---|---|---|---|---|", *rows]
        )
        whose = " Scores are pi's, those of names that end in -ntp the control's." if facts.is_ra3 else ""
        yield f"pass@k, mean over tasks of the unbiased estimator, with the bootstrap interval over tasks.{whose}"
        told = [note for found in facts.evaluations.values() for note in found.get("notes") or ()]
        if told:
            yield "\n".join(f"- {note}" for note in dict.fromkeys(told))


def _evaluation_rows(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    benchmark, _, step = name.partition("/")
    for prefix, scores in (("", found.get("scores")), ("base tests, ", found.get("base_scores"))):
        for score, value in (scores or {}).items():
            if value["value"] is None:
                shown = "not measured"
            else:
                shown = f"{value['value']:.1%} [{value['lo']:.1%}, {value['hi']:.1%}]"
            at = int(step.removeprefix("step-")) if re.fullmatch(r"step-\d+", step) else step
            yield f"| {benchmark} | {at} | {prefix}{score} | {shown} | {value['problems']} | {found.get('n')} |"


def _data(facts: Facts) -> Iterator[str]:
    if not facts.data:
        return
    settings = facts.tree.get("data") or {}
    names: tuple[str, ...] = ("comments", "docstrings", "max_tokens", "max_lines")
    names += ("max_prompt_tokens", "max_problems", "exclude") if facts.is_rlvr else ()
    kept = {name: settings[name] for name in names if settings.get(name) is not None}
    account = {name: value for name, value in facts.data.items() if name != "first_dropped"}
    rows = {**account, **{f"setting: {name}": value for name, value in kept.items()}}
    yield _table({name.replace("_", " "): value for name, value in rows.items()})


def _cell(value: Any) -> str:
    """A value of a table.

    >>> _cell({"unparsable": 3, "binary": 1}), _cell({}), _cell("a|b")
    ('3 unparsable, 1 binary', 'none', 'a\\\\|b')
    """
    if isinstance(value, Mapping):
        shown = ", ".join(f"{count} {what}" for what, count in value.items()) or "none"
    else:
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return shown.replace("|", "\\|")


def _made(facts: Facts) -> Iterator[str]:
    starts: Sequence[Mapping[str, Any]] = facts.provenance.get("starts") or ()
    rows: dict[str, Any] = {}
    if starts:
        last = starts[-1]
        environment = last.get("environment") or {}
        kit, packages = environment.get("ra3kit") or {}, environment.get("packages") or {}
        resumed = f", and resumed {len(starts) - 1} times" if len(starts) > 1 else ""
        rows |= {"trained with": f"`{starts[0].get('command')}`{resumed}", "outcome": last.get("outcome")}
        rows |= {"recipe": (last.get("recipe") or {}).get("name"), "seed": (last.get("recipe") or {}).get("seed")}
        rows |= {"ra3kit": " ".join(str(kit[key]) for key in ("version", "commit") if kit.get(key))}
        if kit.get("changed"):
            rows["ra3kit"] += f" ({kit['changed']} files differ from the commit)"
        rows |= {"commit of the working folder": (last.get("here") or {}).get("commit")}
        rows |= {"devices": f"{last.get('devices')}, {last.get('strategy')}, {last.get('precision')}"}
        rows |= {"versions": ", ".join(f"{name} {version}" for name, version in packages.items())}
    elif facts.checkpoint:
        versions = facts.checkpoint.get("versions") or {}
        rows |= {"ra3kit": facts.checkpoint.get("ra3kit")}
        rows |= {"versions": ", ".join(f"{name} {version}" for name, version in versions.items())}
    rows |= {"data hash": facts.data.get("data_hash"), "exported with": f"`{facts.command}`"}
    yield _table(rows)
    if facts.recipe is not None:
        title = "The recipe, every value written out (recipe.yaml)"
        yield f"<details>\n<summary>{title}</summary>\n\n```yaml\n{facts.recipe}```\n\n</details>"


def _limitations(facts: Facts) -> Iterator[str]:
    lines = []
    if facts.thinks:
        lines.append(
            "Thoughts were rewarded for making the next lines likelier, no more. Nobody checked that they are true or "
            "of use to a reader."
        )
    if facts.is_rlvr:
        lines.append(
            "It was rewarded for passing the tests of its training problems, no more: where tests were weak, so may be "
            "its programs."
        )
    if facts.which == "q":
        lines.append("The posterior was trained to write thoughts before given code, not to write code.")
    if not facts.evaluations:
        lines.append("Its programs have not been run on any benchmark.")
    lines.append("What it writes may be wrong or harmful: run it in a sandbox (`ra3kit verify`).")
    looked = "in the sets named under training data" if facts.is_rlvr else "where the recipe names `decontaminate`"
    lines.append(f"It may repeat its training data. Contamination with benchmarks was looked for only {looked}.")
    if forced := facts.data.get("evaluation_forced"):
        lines.append(f"It was trained on evaluation data ({_cell(forced)}): its scores on these sets mean nothing.")
    base = facts.policy.get("model")
    of_base = f" and of its base model ({base})" if is_hub_id(base) else ""
    lines.append(
        f"No licence is stated here: see to those of the training data{of_base} before it is passed on, and set "
        "`license` above."
    )
    if stopped := facts.results.get("stopped"):
        lines.append(f"The run stopped before its end: {stopped}")
    if not facts.results.get("scores"):
        lines += [str(Finding(**finding)) for finding in facts.results.get("guards") or ()]
    yield "\n".join(f"- {line}" for line in lines)


def _files(facts: Facts, sizes: Mapping[str, int]) -> Iterator[str]:
    rows = [f"| {name} | {sizes[name]:,} | `{digest}` |" for name, digest in facts.weights.items()]
    yield "\n".join(["| file | bytes | SHA-256 |", "|---|---|---|", *rows])
