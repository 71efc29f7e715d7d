"""The guide to writing components: its examples run, are short, and cover every contract; what it prints is true."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml

from ra3kit.contracts import CONTRACTS
from ra3kit.errors import ConformanceError

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
EXAMPLES = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TEXTS = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(example: str) -> str:
    """Run an example as the module `my_parts`; what it prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(example, "my_parts.py", "exec"), {"__name__": "my_parts"})
    return said.getvalue()


@pytest.mark.parametrize(("title", "example"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_each_example_keeps_its_contract(title: str, example: str) -> None:
    run(example)


def test_there_is_one_example_for_each_checker_of_at_most_30_lines() -> None:
    calls = re.compile(r"^(?:print\()?(check_\w+)\(", re.MULTILINE)
    used = [name for _, example in EXAMPLES for name in calls.findall(example)]
    assert sorted(used) == sorted(contract.checker for contract in CONTRACTS if contract.checker)
    assert len(EXAMPLES) == PAGE.count("```python\n")
    for title, example in EXAMPLES:
        assert len([line for line in example.splitlines() if line.strip()]) <= 30, title


def test_the_table_is_that_of_the_contracts() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert rows == [
        f"| {c.name} | {f'`{c.key}`' if c.key else 'none'} | `{c.base}` | "
        f"{f'`{c.checker}`' if c.checker else 'none'} | {c.when} |"
        for c in CONTRACTS
    ]


def test_the_report_and_the_error_shown_are_those_that_are_printed() -> None:
    report, error = TEXTS
    (prior,) = [example for title, example in EXAMPLES if title == "A prior"]
    assert run(prior) == report
    broken = prior.replace("is_thought.cumsum(-1)", "is_thought.sum(-1, keepdim=True).expand_as(is_thought)")
    with pytest.raises(ConformanceError) as caught:
        run(broken)
    assert f"ConformanceError: {caught.value}\n" == error


def test_the_piece_of_a_recipe_names_the_class_and_its_arguments() -> None:
    (piece,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    prior = yaml.safe_load(piece)["model"]["prior"]
    (example,) = [example for title, example in EXAMPLES if title == "A prior"]
    space: dict[str, object] = {"__name__": "my_parts"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(example, space)
    made = space[prior.pop("class_path").removeprefix("my_parts.")]
    assert callable(made)
    assert made(**prior).free == prior["free"]
