"""Thoughts in answers, by hand; credit against enumeration of every group."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ra3kit.errors import RecipeError
from ra3kit.evaluation.prompts import STOPS, Style
from ra3kit.latents import token_bytes
from ra3kit.rlvr.tasks import Answer, Task
from ra3kit.rlvr.thoughts import Thoughts, segment_advantages, thought_metrics, thought_sums, thoughts_of
from ra3kit.rollout.jobs import Completion
from ra3kit.testing.models import tiny_tokenizer
from ra3kit.verify.problem import Calls, Problem

TOKENIZER = tiny_tokenizer()
TEXTS = token_bytes(TOKENIZER)
END = TOKENIZER.eos_token_id
HEAD = "def total(values):\n"


def task(prompt: str = HEAD, style: Style = "complete") -> Task:
    stops = STOPS["function"] if style != "chat" else ("<|im_end|>",)
    return Task(Problem("id", Calls("total", [[[1]]], [1]), prompt), [0], stops, style)


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def words(ids: Sequence[int], span: tuple[int, int]) -> str:
    return b"".join(TEXTS[token] or b"" for token in ids[slice(*span)]).decode()


def said(text: str, prompt: str = HEAD, style: Style = "complete") -> list[str]:
    ids = ids_of(text)
    return [words(ids, span) for span in thoughts_of(task(prompt, style), ids, TEXTS).spans]


# ---- where they are -------------------------------------------------------------------------------------------------

TWO = "# start from nothing\n    result = 0\n# add all of them\n    for value in values:\n        result += value\n"


def test_the_tokens_of_thoughts_and_the_places_where_they_could_stand() -> None:
    ids = [*ids_of(TWO), END]
    found = thoughts_of(task(), ids, TEXTS)
    assert [words(ids, span) for span in found.spans] == ["# start from nothing\n", "# add all of them\n"]
    assert found.tokens == sum(len(ids_of(line)) for line in TWO.splitlines(keepends=True) if line[0] == "#")
    assert found.lines == 3
    starts = [0, *itertools.accumulate(len(ids_of(line)) for line in TWO.splitlines(keepends=True))]
    assert found.decisions == starts  # the end token stands where a line could begin too
    assert ids[starts[-1]] == END


@pytest.mark.parametrize(
    ("prompt", "text", "thoughts"),
    [
        (HEAD, "    return 1\n", []),
        (HEAD, "    # not at column 0\n    return 1  # nor here\n", []),
        (HEAD, "#\n#  \n# x\n    return 1\n", ["# x\n"]),  # nothing is thought without a content
        (HEAD, "    return 1\n# cut off", []),
        (HEAD, "    x = [1,\n# in a bracket\n2]\n# after it\n    return x\n", ["# after it\n"]),
        (HEAD, "    x = (1,\n    return x\n# in an open bracket\n", []),
        (HEAD, "    x = '''\n# in a string\n'''\n# out of it\n", ["# out of it\n"]),
        (HEAD, "    x = 1 + \\\n# no\n    2\n", []),
        (HEAD, "# ü 日本\n    x = 'ü'\n# then\n    return x\n", ["# ü 日本\n", "# then\n"]),
        (HEAD, "# a\r\n    return 1\n", []),
        (HEAD + '    """Adds.\n', '# still the docstring\n    """\n# now\n    return 1\n', ["# now\n"]),
        (HEAD + "    x = [\n", "# in the bracket\n    ]\n# now\n", ["# now\n"]),
        (HEAD + "    x = 1", "# no line of its own\n# one\n    return x\n", ["# one\n"]),
        (HEAD + "    x = 1", "\n# one\n    return x\n", ["# one\n"]),
        ("", "# first\nx = 1\n", ["# first\n"]),
        (HEAD, "# in\n    return 1\n\ndef other():\n# out\n    pass\n", ["# in\n"]),
    ],
)
def test_what_is_a_thought(prompt: str, text: str, thoughts: list[str]) -> None:
    assert said(text, prompt) == thoughts


def test_in_a_chat_answer_thoughts_stand_in_code_blocks() -> None:
    text = (
        "# Title\nSum them.\n```python\n# add\ndef total(values):\n    return sum(values)\n```\n# Notes\n"
        "```bash\n# install\npip\n```\n```\n# plain\nx = (\n# in it\n```\n# More\n"
    )
    assert said(text, style="chat") == ["# add\n", "# plain\n"]
    found = thoughts_of(task(style="chat"), ids_of(text), TEXTS)
    assert found.lines == 4  # `# in it` is in a bracket: a line like any other
    assert said("```python\n# open to the end\nx = 1\n", style="chat") == ["# open to the end\n"]


def test_a_token_across_a_line_end_opens_no_decision() -> None:
    """Under GPT-2's rules the space of the next line may be in one token with the line end."""
    texts = [b"x = 1", b"\n    ", b"y", b"\n", b"# a", b"\n#", b" b\n", None]
    found = thoughts_of(task(""), [0, 1, 2, 3, 4, 5, 6, 7], texts)
    assert found.decisions == [0, 4, 7]
    assert found.spans == [(4, 6), (5, 7)]  # the token of both is in both


def test_no_tokens_no_thoughts() -> None:
    assert thoughts_of(task(), [], TEXTS) == Thoughts([], [], 0)


PIECES = [
    *("# t\n", "    x = 1\n", "    x = [1,\n", "2]\n", "(\n", "    return x\n", "    s = '''\n", "'''\n", "\\\n", "\n"),
    *(
        "    y = f'{x}'\n",
        "    y = f'''{\n",
        "}'''\n",
        "'\n",
        "```python\n",
        "```\n",
        "```\n",
        "import os\n",
        "\r\n",
        "é\n",
    ),
]


@pytest.mark.parametrize("style", ["complete", "chat"])
def test_whether_a_token_is_a_decision_depends_on_the_tokens_before_it_alone(style: Style) -> None:
    """What makes `segment_advantages` unbiased: any other continuation leaves the answer to the question as it is."""
    generator = np.random.default_rng(0)
    following = [
        ids_of(text) for text in ("# t\n", "    return x\n", "import os\n", "]\n", "x", "\n", "```\n", "'''\n")
    ]
    asked = 0
    for _ in range(60):
        ids = ids_of("```python\n" * (style == "chat") + "".join(generator.choice(PIECES, 6)))
        decisions = thoughts_of(task(style=style), ids, TEXTS).decisions
        for at in generator.choice(len(ids), min(8, len(ids)), replace=False):
            for other in [*following, [END]]:
                changed = thoughts_of(task(style=style), [*ids[:at], *other], TEXTS).decisions
                assert [d for d in changed if d <= at] == [d for d in decisions if d <= at]
                asked += bool(at in decisions)
    assert asked > 100


# ---- figures --------------------------------------------------------------------------------------------------------


def answer(text: str, reward: float | None) -> Answer:
    ids = ids_of(text)
    completion = Completion(ids, text, [], [], "end")
    return Answer(task(), 0, completion, task().program(text), None, reward)


def test_figures_of_a_step_and_of_two_processes() -> None:
    answers = [answer(TWO, 1.0), answer(TWO, 0.0), answer("    return 1\n", 0.25), answer("    return 2\n", None)]
    found = [thoughts_of(one.task, one.completion.ids, TEXTS) for one in answers]
    sums = thought_sums(answers, found)
    halves = [thought_sums(answers[:1], found[:1]), thought_sums(answers[1:], found[1:])]
    assert sums == {name: halves[0][name] + halves[1][name] for name in sums}
    assert thought_metrics(sums) == {
        "thoughts_per_answer": 1.0,
        "thought_rate": 4 / 8,
        "tokens_per_thought": found[0].tokens / 2,
        "reward_with_thoughts": 0.5,
        "reward_without_thoughts": 0.25,
        "answers_with_thoughts": 2.0,
        "answers_without_thoughts": 1.0,
    }


def test_a_mean_of_nothing_is_left_out() -> None:
    plain = [answer("    return 1\n", 0.0)]
    found = [thoughts_of(one.task, one.completion.ids, TEXTS) for one in plain]
    metrics = thought_metrics(thought_sums(plain, found))
    assert metrics["thought_rate"] == metrics["answers_with_thoughts"] == 0.0
    assert not {"tokens_per_thought", "reward_with_thoughts"} & set(metrics)
    assert thought_metrics(thought_sums([], [])) == {"answers_with_thoughts": 0.0, "answers_without_thoughts": 0.0}


# ---- credit ---------------------------------------------------------------------------------------------------------

Tokens = tuple[int, ...]
LEAVES: list[Tokens] = [(0,), (1, 0), *itertools.product([1], [1, 2], [0, 1])]
"""Answers of a small tree: token 0 ends some early; 1 first, then one of three, then one of two."""
NODES: list[Tokens] = [(), (1,), (1, 1), (1, 2)]
GENERATOR = np.random.default_rng(1)
LOGITS = {node: GENERATOR.normal(size=3 if node == (1,) else 2) for node in NODES}
WORTH = dict(zip(LEAVES, GENERATOR.uniform(size=len(LEAVES)).tolist(), strict=True))


def policy(node: Tokens) -> np.ndarray:
    e = np.exp(LOGITS[node])
    return e / e.sum()


def probability(leaf: Tokens) -> float:
    return float(np.prod([policy(leaf[:t])[leaf[t]] for t in range(len(leaf))]))


def score(leaf: Tokens, weights: Sequence[float]) -> np.ndarray:
    """Sum over tokens of weight * grad log pi(token), by the logits of all nodes."""
    grad = {node: np.zeros_like(logits) for node, logits in LOGITS.items()}
    for t, weight in enumerate(weights):
        grad[leaf[:t]] += weight * (np.eye(len(policy(leaf[:t])))[leaf[t]] - policy(leaf[:t]))
    return np.concatenate([grad[node] for node in NODES])


def true_gradient() -> np.ndarray:
    return sum(probability(leaf) * score(leaf, [WORTH[leaf]] * len(leaf)) for leaf in LEAVES)


Rule = Callable[[Tokens], list[int]]


def expected_gradient(group: int, rule: Rule, least: int = 1) -> np.ndarray:
    """Of a group's mean estimate, over every group there can be."""
    total = np.zeros_like(true_gradient())
    for leaves in itertools.product(LEAVES, repeat=group):
        advantages = segment_advantages(leaves, [WORTH[x] for x in leaves], [rule(x) for x in leaves], least)
        estimates = [score(x, a.tolist()) for x, a in zip(leaves, advantages, strict=True) if a is not None]
        total += np.prod([probability(x) for x in leaves]) * np.mean(estimates, axis=0)
    return total


RULES: dict[str, Rule] = {
    "whole answers": lambda leaf: [0],
    "every token": lambda leaf: list(range(len(leaf))),
    "where the tokens before say so": lambda leaf: [0, *[t for t in range(1, len(leaf)) if leaf[:t] in {(1,), (1, 2)}]],
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("group", "least"), [(2, 1), (3, 1), (3, 2)])
def test_credit_is_unbiased_over_every_group(rule: str, group: int, least: int) -> None:
    np.testing.assert_allclose(expected_gradient(group, RULES[rule], least), true_gradient(), atol=1e-6)


def test_stretches_that_begin_at_thoughts_only_would_be_biased() -> None:
    """Why decisions are places where a thought could stand: with token 1 a thought, and no stretch where there is
    none, the same estimate favours or shuns thoughts for nothing."""
    at_thoughts: Rule = lambda leaf: [0, *[t for t in range(1, len(leaf)) if leaf[t] == 1]]  # noqa: E731
    off = np.abs(expected_gradient(3, at_thoughts) - true_gradient()).max()
    assert off > 1e-3  # a thousand times what the tests above allow


def test_credit_by_stretches_is_less_noisy_where_the_beginning_decides() -> None:
    """Answers that begin with 2 fail, those with 1 pass in half of the cases, by their last token."""
    ids = [[1, 5, 0], [1, 5, 1], [2, 5, 0], [2, 5, 1], [1, 5, 1], [1, 5, 0]]
    rewards = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    whole = segment_advantages(ids, rewards, [[0]] * 6)
    parts = segment_advantages(ids, rewards, [[0, 2]] * 6)
    assert [a[2] for a in parts if a is not None] == pytest.approx([2 / 3, -2 / 3, 0, 0, -2 / 3, 2 / 3])
    assert [a[2] for a in whole if a is not None] == pytest.approx([0.8, -0.4, -0.4, -0.4, -0.4, 0.8])
    for a, b in zip(parts, whole, strict=True):
        assert a is not None
        assert b is not None
        assert a[:2].tolist() == b[:2].tolist()


def naive(ids: list[list[int]], rewards: list[float | None], decisions: list[list[int]], least: int) -> list[object]:
    """As the docstring says it, token by token."""
    out: list[object] = []
    for i, own in enumerate(ids):
        reward = rewards[i]
        if reward is None:
            out.append(None)
            continue
        values = []
        for t in range(len(own)):
            for s in sorted((d for d in {0, *decisions[i]} if d <= t), reverse=True):
                others = [
                    rewards[j]
                    for j in range(len(ids))
                    if j != i and rewards[j] is not None and ids[j][:s] == own[:s] and len(ids[j]) >= s
                ]
                if len(others) >= (least if s else 1) or s == 0:
                    values.append(reward - sum(others) / len(others) if others else 0.0)  # type: ignore[arg-type]
                    break
        out.append(values)
    return out


@pytest.mark.parametrize("least", [1, 2])
def test_credit_of_random_groups_is_that_of_a_naive_program(least: int) -> None:
    generator = np.random.default_rng(least)
    for _ in range(40):
        sizes = generator.integers(1, 7, size=5)
        ids = [generator.integers(0, 2, size=n).tolist() for n in sizes]
        rewards = [None if u > 0.9 else float(u > 0.5) for u in generator.uniform(size=5)]
        decisions = [sorted({0, *generator.integers(0, n, size=2).tolist()}) for n in sizes]
        got = segment_advantages(ids, rewards, decisions, least)
        for one, other in zip(got, naive(ids, rewards, decisions, least), strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert one.dtype == np.float32
                assert one.tolist() == pytest.approx(other, abs=1e-6)


def test_whole_answers_are_leave_one_out_and_equal_rewards_are_exactly_nothing() -> None:
    rewards = [1.0, None, 0.0, 0.3]
    got = segment_advantages([[1], [2], [3, 4], [5]], rewards, [[0]] * 4)
    assert got[1] is None
    assert [float(a[0]) for a in got if a is not None] == pytest.approx([1 - 0.15, 0 - 0.65, 0.3 - 0.5])
    equal = segment_advantages([[1, 2], [1, 2], [1, 3], [4]], [0.1] * 4, [[0, 1]] * 4)
    assert all(not a.any() for a in equal if a is not None)
    alone = segment_advantages([[1, 2], [3]], [1.0, None], [[0, 1], [0]])
    assert alone[0] is not None
    assert alone[0].tolist() == [0.0, 0.0]
    with pytest.raises(RecipeError, match="least=0"):
        segment_advantages([], [], [], least=0)
