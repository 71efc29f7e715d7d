"""From a prompt to the program: stops that leave thoughts alone, code blocks, heads, and what is given to the model."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ra3kit.errors import RecipeError
from ra3kit.evaluation import evalplus, prompts
from ra3kit.evaluation.prompts import CHAT_STOPS, STOPS, code_block, cut, program_of, prompt_ids
from ra3kit.testing.models import tiny_tokenizer
from ra3kit.verify.problem import Asserts, Calls, Problem, Streams

FUNCTION = Problem(
    "t/0",
    Asserts("", "f"),
    prompt='import math\n\ndef g(x):\n    return x\n\ndef f(x):\n    """Round up."""\n',
    solution='import math\n\ndef f(x):\n    """Round up."""\n    return math.ceil(x)\n',
    meta={"form": "function", "entry_point": "f"},
)
MODULE = Problem(
    "t/1",
    Asserts("assert f(1) == 1"),
    prompt='"""\nThe same.\nassert f(1) == 1\n"""\n',
    solution="def f(x: int, y=[1]):\n    return x\n",
    meta={"form": "module", "entry_point": "f"},
)
PROGRAM = Problem("t/2", Asserts(""), prompt=prompts.statement_docstring("Add.", True), meta={"form": "program"})


def test_a_thought_at_column_0_in_a_function_body_survives() -> None:
    answer = "# round towards infinity\n    y = math.ceil(x)\n# done\n    return y\n# a helper\ndef h():\n    pass\n"
    kept = cut(answer, prompts.stops_of(FUNCTION, "complete"))
    assert kept == "# round towards infinity\n    y = math.ceil(x)\n# done\n    return y\n# a helper"
    program = program_of(FUNCTION, kept, "complete")
    namespace: dict[str, Any] = {}
    exec(program, namespace)
    assert namespace["f"](1.5) == 2


def test_no_stop_list_can_cut_a_thought() -> None:
    lists = [*STOPS.values(), CHAT_STOPS]
    for thought in ("# x\n", "\n# x\n", "    a = 1\n# x\n    b = 2\n"):
        assert [cut(thought, stops) for stops in lists] == [thought] * len(lists)
    assert not any(stop.lstrip("\n").startswith("#") for stops in lists for stop in stops)


def test_the_first_stop_string_cuts() -> None:
    assert cut("a\nprint(1)\ndef f\n", STOPS["function"]) == "a"
    assert cut("a\n  def f\n", STOPS["function"]) == "a\n  def f\n"
    assert cut("def f(x):\n    return x\n\ndef g(): pass\nassert f", STOPS["module"]).endswith("pass")
    assert cut("import sys\nprint(1)\nif __name__ == '__main__': f()\n```", STOPS["program"]).endswith("f()")


@pytest.mark.parametrize(
    ("read", "file"),
    [
        (evalplus.humaneval, "humaneval/HumanEval.jsonl.gz"),
        (evalplus.mbpp_plus, "mbpp_plus/MbppPlus.jsonl.gz"),
        (evalplus.mbpp, "mbpp/mbpp.jsonl"),
    ],
)
def test_no_stop_list_cuts_a_reference_solution(shared_data: Path, read: Any, file: str) -> None:
    for problem in read(shared_data / file).problems:
        answer = problem.solution.removeprefix(problem.prompt)
        assert cut(answer, prompts.stops_of(problem, "complete")) == answer, problem.id
        assert prompts.compiles(program_of(problem, answer, "complete"))


def test_a_stub_gives_the_head_and_its_answer_ends_like_a_function() -> None:
    assert prompts.prompt_text(MODULE, "stub") == MODULE.prompt + "def f(x: int, y=[1]):\n"
    assert prompts.prompt_text(FUNCTION, "stub") == FUNCTION.prompt
    assert prompts.stops_of(MODULE, "stub") == STOPS["function"]
    assert prompts.stops_of(MODULE, "complete") == STOPS["module"]
    ast.parse(program_of(MODULE, "    return x\n", "stub"))


def test_the_form_is_read_off_prompt_and_tests_where_nothing_says_it() -> None:
    for problem in (FUNCTION, MODULE, PROGRAM):
        silent = replace(problem, meta={}, tests=Streams([], []) if problem is PROGRAM else Asserts("", "f"))
        assert prompts.form_of(silent, "complete") == problem.meta["form"]
    method = Problem("t/5", Calls("Solution().f", [], []), prompt="class Solution:\n    def f(self):\n")
    assert prompts.form_of(method, "complete") == "function"


def test_a_statement_is_a_docstring_whatever_it_holds() -> None:
    text = 'a \\le b, """quoted""", \\N, \\x, ends with \\'
    prompt = prompts.statement_docstring(text, reads_input=True)
    value = ast.literal_eval(prompt.strip())
    assert text.replace('"""', "'''") in value
    assert "standard input" in value
    assert "standard input" not in prompts.statement_docstring(text)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (
            "Here:\n```python\ndef f(x):\n    return 1\n```\nTest:\n```python\nprint(f(1))\n```",
            "def f(x):\n    return 1\n",
        ),
        ("```python\nx = 1\n```\n```python\nx = 2\n```", "x = 2\n"),
        ("```\nx = 3\n```", "x = 3\n"),
        ("```bash\npip\n```\n```py\nx = 4\n```", "x = 4\n"),
        ("```python\ndef f(x):\n    return 5", "def f(x):\n    return 5"),
        ("  ```python\n  x = 6\n  ```", "  x = 6\n"),
        ("no code", None),
    ],
)
def test_the_code_block_of_a_chat_answer(answer: str, code: str | None) -> None:
    assert code_block(answer, "f") == code


def test_a_chat_answer_gets_the_imports_and_helpers_of_the_prompt() -> None:
    answer = "```python\ndef f(x):\n    return math.ceil(g(x))\n```"
    program = program_of(FUNCTION, answer, "chat")
    namespace: dict[str, Any] = {}
    exec(program, namespace)
    assert namespace["f"](1.5) == 2
    assert program_of(MODULE, answer, "chat") == "def f(x):\n    return math.ceil(g(x))\n"
    assert program_of(PROGRAM, "print(1)", "chat") == "print(1)"


def test_an_unfinished_line_can_be_dropped() -> None:
    assert prompts.without_unfinished_line("a\nb") == "a\n"
    assert prompts.without_unfinished_line("a\nb\n") == "a\nb\n"
    assert prompts.without_unfinished_line("a") == ""


def test_the_preamble_comes_after_future_imports() -> None:
    problem = Problem("t/3", Asserts(""), meta={"preamble": "import math\n"})
    assert prompts.with_preamble(problem, "x = 1\n") == "import math\nx = 1\n"
    assert prompts.with_preamble(MODULE, "x = 1\n") == "x = 1\n"
    program = prompts.with_preamble(problem, '"""doc"""\nfrom __future__ import annotations\nx = math.pi\n')
    exec(compile(program, "", "exec"), {})


@pytest.mark.parametrize("program", ["def f(:", "x = '\0'", "(" * 1000, "return 1\n  x"])
def test_programs_that_do_not_compile(program: str) -> None:
    assert not prompts.compiles(program)
    assert prompts.compiles("x = '\\d'\n")


@pytest.mark.parametrize(("rules", "start"), [("qwen2", "<|endoftext|>"), ("llama3", "<|begin_of_text|>")])
def test_a_prompt_has_one_start_token_and_reads_specials_as_text(rules: Any, start: str) -> None:
    tokenizer = tiny_tokenizer(rules)
    problem = Problem("t/4", Asserts(""), prompt="def f():  # <|endoftext|>\n")
    ids = prompt_ids(problem, "complete", tokenizer)
    assert tokenizer.convert_ids_to_tokens(ids[:1]) == [start]
    assert not set(ids[1:]) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids[1:]) == problem.prompt
    assert prompt_ids(problem, "complete", tokenizer, start_token=False) == ids[1:]


def test_the_chat_style_needs_a_template_and_uses_it() -> None:
    tokenizer = tiny_tokenizer("gpt2")
    with pytest.raises(RecipeError, match="no chat template"):
        prompt_ids(FUNCTION, "chat", tokenizer)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"
    try:
        text = tokenizer.decode(prompt_ids(FUNCTION, "chat", tokenizer))
    finally:
        tokenizer.chat_template = None
    assert text.startswith("[user]Complete this Python function.")
    assert FUNCTION.prompt.strip() in text
    assert text.endswith("[answer]")
    with pytest.raises(RecipeError, match=r"style='chatt'.*Did you mean 'chat'"):
        prompts.check_style("chatt")
