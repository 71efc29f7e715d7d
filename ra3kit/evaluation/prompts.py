"""From a problem to what a model is given, and from what it answers to the program that is judged.

One stop list for each form of answer, the same whatever model answers (base, NTP or RA3), written into every eval card.
None of them holds "\\n#": a thought is a comment at column 0, and in a function body Python lets it stand there.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

from ra3kit.errors import RecipeError, nearest
from ra3kit.verify.problem import Problem, Streams

Style = Literal["complete", "stub", "chat"]
"""complete: the problem's prompt as it is, the answer is its continuation.
stub: the same, and where the prompt does not begin the function (MBPP), its head `def name(arguments):` follows, which
gives the arguments' names away.
chat: the tokenizer's chat template asks for the solution, the answer's code block is taken."""

Form = Literal["function", "module", "program"]
"""What the answer is: the rest of a function, the rest of a module that defines it, or a program that reads input."""

SPECIAL = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|im_start|>",
    "<|fim_prefix|>",
    "<|file_sep|>",
    "<|endofmask|>",
    "</s>",
)
"""End and control tokens written as text."""
STOPS: dict[Form, tuple[str, ...]] = {
    "function": (
        *("\ndef ", "\nasync def ", "\nclass ", "\n@", "\nimport ", "\nfrom "),
        *("\nassert ", "\nprint(", "\nif __name__", '\n"""', "\n```", *SPECIAL),
    ),
    "module": ("\nassert ", "\nprint(", "\nif __name__", '\n"""', "\n```", *SPECIAL),
    "program": ('\n"""', "\n```", *SPECIAL),
}
"""The stop list of each form. A function's answer ends where the next top-level statement begins; a module's may define
helpers, so only what follows a finished answer stops it; a program prints and has a main part of its own."""
CHAT_STOPS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>")

LEAST_COMPILING = 0.5
"""Below this share of programs that compile, prompt and model do not fit, and every report says so."""
MOST_CUT = 0.05
"""Above this share of answers that were cut, the score says something of the limit, and every report says so."""


# ---- what the model is given ----------------------------------------------------------------------------------------


def statement_docstring(statement: str, reads_input: bool = False) -> str:
    """A task's statement as a module docstring. It is a raw string, so that formulas need no escapes."""
    text = statement.strip().replace('"""', "'''")
    ask = "\n\nRead from standard input, write to standard output." if reads_input else ""
    return f'r"""\n{text}{ask}\n"""\n'


def check_style(style: str) -> Style:
    """The style, if it is one.

    Raises:
        RecipeError: it is not.
    """
    if style not in get_args(Style):
        raise RecipeError(
            f"style={style!r}: allowed are {', '.join(get_args(Style))}.{nearest(style, get_args(Style))}"
        )
    return style  # type: ignore[return-value]


def form_of(problem: Problem, style: Style) -> Form:
    """What an answer to this prompt is."""
    form = base_form(problem)
    return "function" if style == "stub" and form == "module" and stub(problem) else form


def base_form(problem: Problem) -> Form:
    """What an answer to the problem's own prompt is: what `meta` says, else read off the tests and the prompt."""
    if "form" in problem.meta:
        form: Form = problem.meta["form"]
        return form
    if isinstance(problem.tests, Streams):
        return "program"
    return "function" if _head_in_prompt(problem) else "module"


def function_name(problem: Problem) -> str | None:
    """The function or method that the tests call, where it is known."""
    name = problem.meta.get("entry_point") or getattr(problem.tests, "entry_point", None)
    return str(name).rpartition(".")[2] if name else None


def _head_in_prompt(problem: Problem) -> re.Match[str] | None:
    """Where the function that is asked for begins in the prompt; for a method, its class."""
    name = function_name(problem)
    if name is None:
        return None
    found = list(re.finditer(rf"^(?:class Solution\b|def {re.escape(name)}\b)", problem.prompt, re.MULTILINE))
    return found[-1] if found else None


def stops_of(problem: Problem, style: Style) -> tuple[str, ...]:
    """The stop list of an answer to this problem."""
    return CHAT_STOPS if style == "chat" else STOPS[form_of(problem, style)]


def prompt_text(problem: Problem, style: Style) -> str:
    """What stands before the answer in the program; for chat, the task as it is asked."""
    if style == "stub" and base_form(problem) == "module":
        return problem.prompt + stub(problem)
    return problem.prompt


def stub(problem: Problem) -> str:
    """The head of the function that the tests call, taken from the reference solution; "" where it has none."""
    name = function_name(problem)
    if name is None or problem.solution is None:
        return ""
    heads = [node for node in parse(problem.solution).body if isinstance(node, ast.FunctionDef) and node.name == name]
    return f"def {name}({ast.unparse(heads[-1].args)}):\n" if heads else ""


ASKS: dict[Form, str] = {
    "function": "Complete this Python function. Answer with one Python code block that holds the whole function.",
    "module": "Solve this task in Python. Answer with one Python code block that holds the whole solution.",
    "program": "Solve this task with a Python program. Answer with one Python code block that holds the whole program.",
}


def chat_message(problem: Problem) -> str:
    """The user's message of the chat style."""
    return f"{ASKS[form_of(problem, 'chat')]}\n\n```python\n{problem.prompt.strip()}\n```\n"


def prompt_ids(problem: Problem, style: Style, tokenizer: Any, start_token: bool = True) -> list[int]:
    """The ids a model is given: the start token of training, then the prompt as plain text; or the chat template's.

    Args:
        start_token: begin with the BOS token, or with the EOS token where there is none (Qwen2), as trajectories do.

    Raises:
        RecipeError: chat, but the tokenizer has no chat template.
    """
    from ra3kit.data.encode import encode_texts
    from ra3kit.data.tokenizer import start_and_end_ids

    if style == "chat":
        if not getattr(tokenizer, "chat_template", None):
            raise RecipeError("style='chat': this tokenizer has no chat template. Use style=complete or style=stub.")
        messages = [{"role": "user", "content": chat_message(problem)}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    [ids] = encode_texts(tokenizer, [prompt_text(problem, style)])
    return [start_and_end_ids(tokenizer)[0], *ids] if start_token else ids


# ---- from the answer to the program ---------------------------------------------------------------------------------


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string.

    >>> cut("    return x\\n# next\\n\\ndef g():\\n", STOPS["function"])
    '    return x\\n# next\\n'
    """
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def without_unfinished_line(text: str) -> str:
    """The text up to its last line end: what is left when the length limit cut a line in two.

    >>> without_unfinished_line("    x = 1\\n    retu")
    '    x = 1\\n'
    """
    return text[: text.rfind("\n") + 1]


FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
"""A code block: its language and its code."""
PYTHON = ("python", "python3", "py")
"""What a block's language is called where it is Python."""


def code_block(text: str, name: str | None = None) -> str | None:
    """The code of a chat answer: its last Python block that defines `name`, else its last Python block, else its last
    block of any kind; None without a block. A block that was not closed counts.
    """
    blocks = [(language.lower(), code) for language, code in FENCE.findall(text)]
    python = [code for language, code in blocks if language in PYTHON]
    defines = re.compile(rf"^\s*(?:async\s+)?(?:def|class)\s+{re.escape(name)}\b", re.MULTILINE) if name else None
    defining = [code for code in python if defines and defines.search(code)]
    found = defining or python or [code for _, code in blocks]
    return found[-1] if found else None


def before_function(problem: Problem) -> str:
    """What a function's prompt has before the function itself: imports and helpers that a chat answer leaves out."""
    found = _head_in_prompt(problem) if base_form(problem) == "function" else None
    return problem.prompt[: found.start()] if found else ""


def program_of(problem: Problem, completion: str, style: Style) -> str:
    """The program that is judged, from an answer that was cut at its stop list."""
    if style != "chat":
        return prompt_text(problem, style) + completion
    block = code_block(completion, function_name(problem))
    return before_function(problem) + (completion if block is None else block)


def with_preamble(problem: Problem, program: str) -> str:
    """The program with the names that the benchmark's grader gives it (LiveCodeBench's), after `__future__` imports."""
    preamble = str(problem.meta.get("preamble") or "")
    if not preamble:
        return program
    future = [found.end() for found in re.finditer(r"^from __future__ import .*\n", program, re.MULTILINE)]
    at = future[-1] if future else 0
    return program[:at] + preamble + program[at:]


def parse(text: str) -> ast.Module:
    """`ast.parse` without its warnings: MBPP and models alike write invalid escape sequences."""
    with warnings.catch_warnings(action="ignore"):
        return ast.parse(text)


def compiles(program: str) -> bool:
    """Whether it is Python. It is parsed, never run."""
    try:
        parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a null byte, nesting too deep
        return False
    return True
