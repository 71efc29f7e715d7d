"""The embedded problems: true statements, right references, tests that catch wrong programs, no borrowed problems."""

from __future__ import annotations

import ast
import contextlib
import doctest
import gzip
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from evaluation.second_opinions import OPINIONS
from evaluation.wrong_programs import CHANGES, SLOW, program

from ra3kit.evaluation import embedded
from ra3kit.evaluation.problems.draw import distinct, integers
from ra3kit.evaluation.problems.group import Group
from ra3kit.verify.problem import Calls, Problem

PROBLEMS = embedded.load()
DIGESTS = {1: "33af0b675eecdde7062c80c900bcaf771f827899858cb578fbd30b615fadf0ae"}
"""Of all statements, solutions and tests, by version."""


def ids(problem: Problem) -> str:
    return problem.id


each = pytest.mark.parametrize("problem", PROBLEMS, ids=ids)


def calls(problem: Problem) -> Calls:
    assert isinstance(problem.tests, Calls)
    return problem.tests


def function(source: str, name: str) -> Any:
    namespace: dict[str, Any] = {"__name__": "program"}
    exec(compile(source, name, "exec"), namespace)
    return namespace[name]


def agree(got: Any, expected: Any, atol: float) -> bool:
    """The same types throughout, floats within atol (or 1e-6) and 1e-7 of the expected value."""
    if type(got) is not type(expected):
        return False
    if isinstance(expected, float):
        return abs(got - expected) <= (atol or 1e-6) + 1e-7 * abs(expected)
    if isinstance(expected, (list, tuple)):
        return len(got) == len(expected) and all(agree(g, e, atol) for g, e in zip(got, expected, strict=True))
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(agree(got[key], expected[key], atol) for key in expected)
    return bool(got == expected)


class OutOfTimeError(Exception):
    pass


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Of this process's own CPU time, whatever else the machine does."""

    def stop(*_: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def first_failure(source: str, problem: Problem, seconds: float = 1.0) -> int | None:
    """Index of the first test that the program fails, by a wrong answer, an exception or no answer in time."""
    tests = calls(problem)
    run = function(source, tests.entry_point)
    for index, (arguments, expected) in enumerate(zip(tests.inputs, tests.expected, strict=True)):
        try:
            with cpu_limit(seconds), contextlib.redirect_stdout(io.StringIO()):
                got = run(*deepcopy(arguments))
        except Exception:  # noqa: BLE001  (whatever a wrong program raises)
            return index
        if not agree(got, expected, tests.atol):
            return index
    return None


def test_there_are_enough_of_each_difficulty() -> None:
    count = Counter(problem.meta["difficulty"] for problem in PROBLEMS)
    assert count == {"tiny": 10, "easy": 20, "medium": 18}
    assert len({problem.id for problem in PROBLEMS}) == 48
    assert [problem.meta["difficulty"] for problem in PROBLEMS] == ["tiny"] * 10 + ["easy"] * 20 + ["medium"] * 18


@each
def test_the_solution_is_the_prompt_and_a_body(problem: Problem) -> None:
    solution = problem.solution
    assert solution is not None
    assert solution.startswith(problem.prompt)
    assert problem.prompt.endswith('"""\n')
    compile(problem.prompt + "    pass\n", problem.id, "exec")
    tree = ast.parse(solution)
    definition = tree.body[-1]
    assert isinstance(definition, ast.FunctionDef)
    assert definition.name == calls(problem).entry_point
    assert problem.id == f"RA3/{definition.name}"
    assert all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body[:-1])
    assert definition.returns is not None
    assert all(argument.annotation is not None for argument in definition.args.args)


@each
def test_the_solution_stands_alone_and_passes(problem: Problem) -> None:
    assert problem.solution is not None
    assert "ra3kit" not in problem.solution
    assert first_failure(problem.solution, problem) is None


@each
def test_the_examples_are_true(problem: Problem) -> None:
    run = function(problem.prompt + "    pass\n", calls(problem).entry_point)
    examples = doctest.DocTestParser().get_examples(run.__doc__)
    assert 1 <= len(examples) <= 3
    namespace = {calls(problem).entry_point: function(problem.solution or "", calls(problem).entry_point)}
    test = doctest.DocTest(examples, namespace, problem.id, None, None, None)
    told = io.StringIO()
    assert doctest.DocTestRunner().run(test, out=told.write).failed == 0, told.getvalue()


@each
def test_the_statement_does_not_give_the_solution_away(problem: Problem) -> None:
    """No line of the body that computes something is in it, and no comment: those are a model's to write."""
    assert problem.solution is not None
    prompt = re.sub(r"\s", "", problem.prompt)
    for line in problem.solution[len(problem.prompt) :].splitlines():
        bare = re.sub(r"\s", "", line.strip().removeprefix("return "))
        assert len(bare) < 8 or bare not in prompt, line
    assert "#" not in problem.prompt


@each
def test_inputs_and_answers_are_varied_and_plain(problem: Problem) -> None:
    tests = calls(problem)
    assert tests.base is not None
    assert 4 <= tests.base < len(tests.inputs) == len(tests.expected)
    assert 25 <= len(tests.inputs) <= 100
    assert len(set(map(repr, tests.inputs))) == len(tests.inputs)
    answers = Counter(map(repr, tests.expected))
    assert len(answers) > 1
    assert max(answers.values()) <= 0.8 * len(tests.expected), "one answer is right nearly always"
    # literal_eval reads back plain values only; it has no way to write an empty set
    assert ast.literal_eval(repr([*tests.inputs]).replace("set()", "{0}")) == [*tests.inputs]
    text = repr([*tests.expected])
    assert isinstance(ast.literal_eval(text.replace("set()", "{0}")), list)


def test_arguments_have_the_annotated_types() -> None:
    beartype = pytest.importorskip("beartype")
    for problem in PROBLEMS:
        tests = calls(problem)
        checked = beartype.beartype(
            conf=beartype.BeartypeConf(strategy=beartype.BeartypeStrategy.O1, is_pep484_tower=False)
        )(function(problem.solution or "", tests.entry_point))
        for arguments in tests.inputs:
            checked(*deepcopy(arguments))


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if calls(p).entry_point in OPINIONS], ids=ids)
def test_a_second_implementation_agrees(problem: Problem) -> None:
    tests = calls(problem)
    for arguments, expected in zip(tests.inputs, tests.expected, strict=True):
        got = OPINIONS[tests.entry_point](*deepcopy(arguments))
        assert agree(got, expected, 1e-9), (arguments, expected, got)


def test_all_but_one_line_problems_have_a_second_implementation() -> None:
    without = {calls(p).entry_point for p in PROBLEMS if calls(p).entry_point not in OPINIONS}
    assert without == {"seats_left", "double_plus_one", "greeting", "shout", "to_minutes", "swapped"}


@pytest.mark.parametrize(
    ("problem", "change"),
    [
        pytest.param(p, change, id=f"{p.id}-{place}")
        for p in PROBLEMS
        for place, change in enumerate(CHANGES[calls(p).entry_point])
    ],
)
def test_wrong_programs_are_caught(problem: Problem, change: Any) -> None:
    assert first_failure(program(problem, change), problem) is not None, change


def test_every_problem_has_wrong_programs_and_some_need_the_drawn_tests() -> None:
    names = [calls(problem).entry_point for problem in PROBLEMS]
    assert set(CHANGES) == set(names)
    assert all(len(CHANGES[name]) >= 2 for name in names)
    late = 0
    for problem in PROBLEMS:
        for change in CHANGES[calls(problem).entry_point]:
            index = first_failure(program(problem, change), problem)
            late += index is not None and index >= (calls(problem).base or 0)
    assert late >= 10, "the drawn tests catch nothing that the base tests don't"


@pytest.mark.parametrize("name", SLOW)
def test_slow_programs_are_right_but_do_not_finish(name: str) -> None:
    (problem,) = [problem for problem in PROBLEMS if calls(problem).entry_point == name]
    tests = calls(problem)
    run = function(program(problem, SLOW[name]), name)
    finished = 0
    for arguments, expected in zip(tests.inputs, tests.expected, strict=True):
        with contextlib.suppress(OutOfTimeError), cpu_limit(0.05):
            got = run(*deepcopy(arguments))
            finished += 1
            assert agree(got, expected, tests.atol)
    assert 5 <= finished < len(tests.inputs)


def test_a_reference_that_changes_its_arguments_does_no_harm() -> None:
    group = Group("tiny")

    @group.problem(base=[([3, 1],)], draw=lambda rng: ([2, -rng.randint(0, 10**6)],), count=2)
    def sorted_in_place(numbers: list[int]) -> list[int]:
        numbers.sort()
        return numbers

    tests = embedded._calls(group.references[0])
    assert tests.inputs[0] == ([3, 1],)
    assert tests.expected[0] == [1, 3]
    assert all(
        arguments[0] == [answer[1], answer[0]] == [2, answer[0]]
        for arguments, answer in zip(tests.inputs[1:], tests.expected[1:], strict=True)
    )
    assert tests.base == 1
    assert len(tests.inputs) == 3


def test_loading_twice_gives_equal_but_separate_problems() -> None:
    again = embedded.load()
    assert again == PROBLEMS
    calls(again[7]).inputs[0][0].append(0)
    assert again != PROBLEMS
    assert embedded.load() == PROBLEMS, "a caller's change got into the problem set"


def test_drawn_inputs_that_come_again_are_left_out() -> None:
    group = Group("tiny")
    group.problem(base=[(0,), (1,)], draw=lambda rng: (rng.randint(0, 3),), count=50)(abs)
    inputs = group.references[0].inputs()
    assert inputs[:2] == [(0,), (1,)]
    assert sorted(inputs) == [(0,), (1,), (2,), (3,)]


def test_draws_keep_their_bounds() -> None:
    rng = Random(0)
    lists = [integers(rng, -1, 2, 1, 3) for _ in range(200)]
    assert {len(numbers) for numbers in lists} == {1, 2, 3}
    assert {number for numbers in lists for number in numbers} == {-1, 0, 1, 2}
    picks = [distinct(rng, "abc", 0, 9) for _ in range(200)]
    assert {len(pick) for pick in picks} == {0, 1, 2, 3}
    assert all(len(set(pick)) == len(pick) for pick in picks)


def canonical(value: Any) -> str:
    """repr, with sets and dicts in sorted order."""
    if isinstance(value, (set, frozenset)):
        return "{" + ",".join(sorted(map(canonical, value))) + "}"
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{canonical(k)}:{canonical(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "[" + ",".join(map(canonical, value)) + "]"
    return repr(value)


def digest(problems: list[Problem]) -> str:
    tests = [(t.inputs, t.expected, t.atol, t.base) for t in map(calls, problems)]
    texts = [(problem.id, problem.prompt, problem.solution) for problem in problems]
    return hashlib.sha256(canonical([texts, tests]).encode()).hexdigest()


def test_the_problem_set_is_the_one_of_its_version() -> None:
    assert digest(PROBLEMS) == DIGESTS[embedded.VERSION], "problems changed: raise VERSION and add the new digest"


@pytest.mark.parametrize("seed", ["1", "2"])
def test_other_processes_load_the_same_without_torch(seed: str) -> None:
    code = (
        "import sys, json\n"
        "from ra3kit.evaluation.embedded import load\n"
        "problems = load()\n"
        "heavy = sorted({'torch', 'transformers', 'lightning', 'numpy', 'datasets'} & set(sys.modules))\n"
        "from evaluation.test_embedded import digest\n"
        "print(json.dumps([digest(problems), heavy]))\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [digest(PROBLEMS), []]


# no borrowed problems


def lines_of(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()]


@pytest.fixture(scope="module")
def others(shared_data: Path) -> list[tuple[str, str]]:
    """(statement, program) of HumanEval and MBPP."""
    human = [
        (r["prompt"], r["prompt"] + r["canonical_solution"])
        for r in lines_of(shared_data / "humaneval/HumanEval.jsonl.gz")
    ]
    mbpp = [(r["text"], r["code"].replace("\r\n", "\n")) for r in lines_of(shared_data / "mbpp/mbpp.jsonl")]
    assert (len(human), len(mbpp)) == (164, 974)
    return human + mbpp


def shapes(source: str) -> set[str]:
    """The bodies of all functions, with names numbered in order of appearance: equal for renamed copies."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            arguments = [argument.arg for argument in node.args.args]
            names = {name: f"v{place}" for place, name in enumerate(arguments)}
            module = deepcopy(ast.Module(body, []))
            for inner in ast.walk(module):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    names.setdefault(inner.id, f"v{len(names)}")
            for inner in ast.walk(module):
                if isinstance(inner, ast.Name):
                    inner.id = names.get(inner.id, inner.id)
            found.add(ast.dump(module))
    return found


def test_shapes_see_through_names() -> None:
    ours = shapes('def f(a, b):\n    """Add."""\n    c = a + b\n    return c\n')
    assert ours == shapes("def add(x, y):\n    total = x + y\n    return total\n")
    assert ours != shapes("def add(x, y):\n    total = x - y\n    return total\n")


def test_no_name_is_taken_from_another_benchmark(others: list[tuple[str, str]]) -> None:
    taken = {name.lower() for _, source in others for name in re.findall(r"def (\w+)", source)}
    assert "has_close_elements" in taken
    assert taken.isdisjoint(calls(problem).entry_point for problem in PROBLEMS)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_no_solution_is_one_of_another_benchmark(others: list[tuple[str, str]]) -> None:
    theirs = set().union(*(shapes(source) for _, source in others))
    same = [problem.id for problem in PROBLEMS if shapes(problem.solution or "") & theirs]
    assert same == []


def test_no_statement_shares_a_phrase_with_another_benchmark(others: list[tuple[str, str]]) -> None:
    def phrases(text: str, size: int = 7) -> set[tuple[str, ...]]:
        words = re.findall(r"[a-z]+", text.lower())
        return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}

    theirs = set().union(*(phrases(statement) for statement, _ in others))
    shared = {problem.id: phrases(problem.prompt) & theirs for problem in PROBLEMS}
    assert {name: found for name, found in shared.items() if found} == {}
