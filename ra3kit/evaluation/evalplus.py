"""HumanEval, HumanEval+, MBPP and MBPP+ from their own files, as problems.

The plus files hold inputs but no outputs, so these readers leave `expected` empty; `ra3kit.evaluation.benchmarks.load`
fills it with what the reference solution returns in the sandbox. MBPP+ inputs went through JSON, which knows no
tuples, sets or complex numbers; their types are read off the calls in the record's own `assertion`, and agree with
evalplus 0.3.1's hand-made conversion on all 378 tasks but those of `MBPP_TYPES`, which follow evalplus.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ra3kit.errors import AbsentData, DataError, nearest
from ra3kit.evaluation.prompts import parse
from ra3kit.evaluation.records import Problems, convert, field_of, strings
from ra3kit.hub import offline
from ra3kit.verify.problem import Asserts, Calls, Limits, Problem

HUMANEVAL_ORACLES = {"find_zero": "poly_root"}
MBPP_ORACLES = {
    "are_equivalent": "any",
    "sum_div": "or_zero",
    "surface_Area": "surface_area",
    "digit_distance_nums": "digit_distance",
    **dict.fromkeys(
        (
            "similar_elements",
            "find_char_long",
            "common_in_nested_lists",
            "extract_singly",
            "larg_nnum",
            "intersection_array",
            "find_dissimilar",
            "Diff",
        ),
        "set",
    ),
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "not_none"),
}
"""Entry points where equality is not the rule, and the oracle of `ra3kit.verify` that is (evalplus 0.3.1)."""

ASSERT_LIMITS = Limits(time=10.0)
MBPP_SPLITS = {"few-shot": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}
"""First and last task id of each split of MBPP (Austin et al. 2021)."""
Split = Literal["test", "train", "validation", "few-shot", "all"]


@dataclass(frozen=True)
class Source:
    """Where a file is looked for when no path is given.

    Args:
        env: evalplus's variable that names a file.
        cached: pattern of the file in evalplus's cache folder; of several versions the last is taken.
        getter: function of `evalplus.data` that downloads it into that cache.
    """

    env: str | None
    cached: str
    getter: str


SOURCES = {
    "humaneval": Source("HUMANEVAL_OVERRIDE_PATH", "HumanEval.jsonl", "get_human_eval"),
    "humaneval+": Source("HUMANEVAL_OVERRIDE_PATH", "HumanEvalPlus-v*.jsonl", "get_human_eval_plus"),
    "mbpp": Source(None, "sanitized-mbpp.json", "get_mbpp"),  # MBPP_OVERRIDE_PATH names a file of MBPP+
    "mbpp+": Source("MBPP_OVERRIDE_PATH", "MbppPlus-v*.jsonl", "get_mbpp_plus"),
}


def locate(name: str, path: str | Path | None) -> Path:
    """The file of a benchmark: `path`, evalplus's variable, evalplus's cache, or evalplus's own download.

    Raises:
        DataError: none of these leads to a file; says all that can be done.
    """
    source = SOURCES[name]
    if path is not None:
        return Path(path).expanduser()
    if source.env and os.environ.get(source.env):
        return Path(os.environ[source.env]).expanduser()
    if (found := _cached(source)) is not None:
        return found
    why = _download(source)
    if (found := _cached(source)) is not None:
        return found
    variable = f" or set {source.env}" if source.env else ""
    raise AbsentData(
        f"benchmark {name!r}: its file was not found. Give path=FILE{variable}; or put it into {_cache()} as "
        f"{source.cached}; or install evalplus (pip install 'ra3kit[eval]'), which downloads it. ({why})"
    )


def _cache() -> Path:
    """evalplus's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evalplus"


def _cached(source: Source) -> Path | None:
    def version(path: Path) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", path.name)))

    return max(_cache().glob(source.cached), key=version, default=None)


def _download(source: Source) -> str:
    """Let an installed evalplus download the file into its cache; why it did not, or ""."""
    if offline():
        return "not downloaded: HF_HUB_OFFLINE is set"
    try:
        import evalplus.data as theirs
    except ImportError:
        return "evalplus is not installed"
    try:
        getattr(theirs, source.getter)()
    except (OSError, AssertionError) as error:  # no network: urllib's errors are OSErrors
        return f"evalplus could not download it: {error}"
    return ""


# ---- HumanEval ------------------------------------------------------------------------------------------------------


def humaneval(path: str | Path | None = None) -> Problems:
    """HumanEval: `check(candidate)` tests. The prompt runs first in the tests' process: tests of 32, 38 and 50 call
    functions that it defines.

    Raises:
        DataError: no file, or nothing usable in it.
    """
    return convert(locate("humaneval", path), humaneval_problem)


def humaneval_problem(index: int, record: dict[str, Any]) -> Problem:
    prompt, entry_point = field_of(record, "prompt"), field_of(record, "entry_point")
    test = _python(field_of(record, "test"), "test")
    if "def check(" not in test:
        raise DataError("test defines no check(candidate)")
    return Problem(
        id=field_of(record, "task_id"),
        tests=Asserts(test, entry_point, setup=prompt),
        prompt=prompt,
        limits=ASSERT_LIMITS,
        solution=prompt + field_of(record, "canonical_solution"),
        meta={"form": "function", "entry_point": entry_point},
    )


def humaneval_plus(path: str | Path | None = None) -> Problems:
    """HumanEval+: base and plus inputs, compared with what the reference solution returns (base tests come first).

    Raises:
        DataError: no file, or nothing usable in it.
    """
    return convert(locate("humaneval+", path), _humaneval_plus)


def _humaneval_plus(index: int, record: dict[str, Any]) -> Problem:
    inputs = [field_of(record, name, kind=list) for name in ("base_input", "plus_input")]
    return _plus(record, inputs, "function", HUMANEVAL_ORACLES)


def _plus(record: dict[str, Any], inputs: list[list[Any]], form: str, oracles: dict[str, str]) -> Problem:
    base, plus = inputs
    for row in (*base, *plus):
        if not isinstance(row, list):
            raise DataError(f"an input is the list of a call's arguments, not {type(row).__name__}")
    prompt, entry_point = field_of(record, "prompt"), field_of(record, "entry_point")
    tests = Calls(
        entry_point,
        inputs=[*base, *plus],
        expected=(),
        atol=float(field_of(record, "atol", kind=(int, float))),
        oracle=oracles.get(entry_point),
        base=len(base),
    )
    return Problem(
        id=field_of(record, "task_id"),
        tests=tests,
        prompt=prompt,
        solution=prompt + field_of(record, "canonical_solution"),
        meta={"form": form, "entry_point": entry_point},
    )


# ---- MBPP -----------------------------------------------------------------------------------------------------------


def mbpp(path: str | Path | None = None, split: Split = "test") -> Problems:
    """MBPP, full or sanitized (told apart by their columns): plain assertions.

    The prompt is a docstring with the task and its assertions. Code that builds what the tests use calls classes of the
    program (367, 927), so it stands with the tests.

    Args:
        path: mbpp.jsonl or sanitized-mbpp.json.
        split: by task id: test is 11 to 510, of which the sanitized file has 257.

    Raises:
        DataError: no file, nothing usable in it, an unknown split.
    """
    if split not in get_args(Split):
        raise DataError(
            f"split={split!r}: allowed are {', '.join(get_args(Split))}.{nearest(str(split), get_args(Split))}"
        )
    first, last = (1, 10**9) if split == "all" else MBPP_SPLITS[split]

    def make(index: int, record: dict[str, Any]) -> Problem | None:
        number = int(field_of(record, "task_id", kind=int))
        return mbpp_problem(number, record) if first <= number <= last else None

    return convert(locate("mbpp", path), make)


def mbpp_problem(number: int, record: dict[str, Any]) -> Problem:
    asserts = strings(field_of(record, "test_list", kind=list), "test_list")
    if not asserts:
        raise DataError("test_list is empty")
    code = _python(field_of(record, "code").replace("\r\n", "\n"), "code")
    imports = "\n".join(strings(field_of(record, "test_imports", kind=list, default=[]), "test_imports"))
    built = field_of(record, "test_setup_code", default="").replace("\r\n", "\n")
    tests = _python("\n".join([built, *asserts] if built else asserts), "test_list")
    entry_point = _called(tests, code)
    text = field_of(record, "text", "prompt").strip()
    return Problem(
        id=f"Mbpp/{number}",
        tests=Asserts(tests + "\n", setup=imports),
        prompt='"""\n' + "\n".join([text, *asserts]) + '\n"""\n',
        limits=ASSERT_LIMITS,
        solution=code,
        meta={"form": "module", "entry_point": entry_point},
    )


def _called(tests: str, code: str) -> str | None:
    """The function or class of `code` that the tests call first."""
    defined = {node.name for node in parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    calls = (node.func for node in ast.walk(parse(tests)) if isinstance(node, ast.Call))
    return next((name.id for name in calls if isinstance(name, ast.Name) and name.id in defined), None)


def mbpp_plus(path: str | Path | None = None) -> Problems:
    """MBPP+: base and plus inputs, compared with what the reference solution returns. The prompt is evalplus's: a
    docstring with the task and one assertion.

    Raises:
        DataError: no file, or nothing usable in it.
    """
    return convert(locate("mbpp+", path), _mbpp_plus)


def _mbpp_plus(index: int, record: dict[str, Any]) -> Problem:
    task_id, entry_point = field_of(record, "task_id"), field_of(record, "entry_point")
    calls = example_calls(field_of(record, "assertion"), entry_point)
    record = record | {"plus_input": field_of(record, "plus_input", kind=(list, dict)) or []}  # {} stands for none
    inputs = [
        [restore_arguments(task_id, arguments, calls) for arguments in field_of(record, name, kind=list)]
        for name in ("base_input", "plus_input")
    ]
    return _plus(record, inputs, "module", MBPP_ORACLES)


# ---- types that JSON lost -------------------------------------------------------------------------------------------


def _all_tuples(value: Any) -> Any:
    return tuple(map(_all_tuples, value)) if isinstance(value, list) else value


MBPP_TYPES: dict[str, Callable[[list[Any]], list[Any]]] = {
    # called with tuples, but evalplus leaves lists
    **dict.fromkeys(("Mbpp/98", "Mbpp/104", "Mbpp/140", "Mbpp/145"), lambda arguments: arguments),
    "Mbpp/596": lambda arguments: [tuple(arguments[0])],
    # nested deeper than in any assertion
    "Mbpp/580": lambda arguments: [_all_tuples(arguments[0])],
    "Mbpp/791": lambda arguments: [_all_tuples(arguments[0])],
    # complex numbers, written as text
    "Mbpp/124": lambda arguments: [float(arguments[0]), complex(arguments[1])],
    "Mbpp/252": lambda arguments: [complex(arguments[0])],
}
"""Tasks of MBPP+ whose argument types cannot be read off the assertion."""

_CONTAINERS: dict[type[ast.expr], type] = {ast.Tuple: tuple, ast.List: list, ast.Set: set}


def example_calls(assertion: str, entry_point: str) -> list[ast.Call]:
    """The calls of a function in test code.

    Raises:
        DataError: not Python, or no such call.
    """
    calls = [
        node
        for node in ast.walk(parse(_python(assertion, "assertion")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry_point
    ]
    if not calls:
        raise DataError(f"assertion never calls {entry_point}")
    return calls


def restore_arguments(task_id: str, arguments: Any, calls: Sequence[ast.Call]) -> list[Any]:
    """One call's arguments with the types that JSON lost, read off example calls.

    Raises:
        DataError: `arguments` is no list, or a value that cannot have the type it should.
    """
    if not isinstance(arguments, list):
        raise DataError(f"an input is the list of a call's arguments, not {type(arguments).__name__}")
    try:
        if task_id in MBPP_TYPES:
            return MBPP_TYPES[task_id](arguments)
        return [
            _restore(value, [call.args[i] for call in calls if i < len(call.args)]) for i, value in enumerate(arguments)
        ]
    except (TypeError, ValueError, IndexError) as error:  # a set of lists, a complex number that is none
        raise DataError(f"an input does not have the types of the assertion: {error}") from error


def _restore(value: Any, examples: Sequence[ast.expr]) -> Any:
    """`value` with the containers that all the examples agree on; where they differ or say nothing, JSON's."""
    if isinstance(value, dict):
        inside = [item for node in examples if isinstance(node, ast.Dict) for item in node.values]
        return {key: _restore(item, inside) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    shown = [node for node in examples if isinstance(node, ast.Tuple | ast.List | ast.Set)]
    items = [_restore(item, [element for node in shown for element in node.elts]) for item in value]
    kinds = {_CONTAINERS[type(node)] for node in shown}
    return kinds.pop()(items) if len(kinds) == 1 else items


def _python(text: str, name: str) -> str:
    """The text, if it is Python.

    Raises:
        DataError: it is not.
    """
    try:
        parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{name} is no Python: {error}") from error
    return text
