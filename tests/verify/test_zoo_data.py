"""The zoo as data: nothing in it is run here."""

from __future__ import annotations

import ast
import collections
import math
from typing import Any

import pytest

from ra3kit.verify import zoo
from ra3kit.verify.problem import Asserts, Calls, Problem, Streams
from ra3kit.verify.zoo.attack import fill
from ra3kit.verify.zoo.escape import REFERENCE_ANSWER

CANARY = zoo.Canary(
    secret_file="/canary/file",
    secret="the-secret-5f2b91",
    writable_dir="/canary/folder",
    env_name="CANARY_KEY",
    tcp_port=4711,
    abstract_socket="canary-socket",
    pid=424_242,
    earlier_secret="earlier-one-0123456789abcdef-4c1d",
    shm_name="canary-memory",
)
ATTACKS = zoo.attacks(CANARY)
HONEST = zoo.honest()


def _answers(problem: Problem) -> list[Any]:
    """What a program must not contain: answers of some length, each on its own."""
    tests = problem.tests
    found = list(tests.expected) if isinstance(tests, Calls) else []
    if isinstance(tests, Streams):
        found = [line for output in tests.outputs for line in output.split("\n")]
    if isinstance(tests, Asserts):
        found = [node.value for node in ast.walk(ast.parse(tests.code)) if isinstance(node, ast.Constant)]
    flat = []
    while found:
        value = found.pop()
        if isinstance(value, (list, tuple)):
            found += value
        elif isinstance(value, dict):
            found += [*value, *value.values()]
        elif (isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) > 1_000_000) or (
            isinstance(value, str) and len(value) > 5
        ):
            flat.append(value)
    return [value for value in flat if value not in (math.inf, -math.inf)]


def test_there_are_enough_of_each_kind_with_names_of_their_own() -> None:
    counts = collections.Counter(attack.category for attack in ATTACKS)
    assert counts["forging"] >= 60
    assert counts["exhaustion"] >= 40
    assert counts["escape"] >= 45
    assert set(counts) == {"forging", "exhaustion", "escape"}
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert len({(attack.program, repr(attack.problem.tests)) for attack in ATTACKS}) == len(ATTACKS)
    assert len({problem.id for _, problem in HONEST}) == len(HONEST) >= 20


def test_each_is_explained_in_one_line_and_named_by_its_problem() -> None:
    for attack in ATTACKS:
        assert 10 < len(attack.why) < 130, attack.name
        assert "\n" not in attack.why
        assert attack.problem.id == f"{attack.category}/{attack.name}"


@pytest.mark.parametrize("attack", [each for each in ATTACKS if each.compiles], ids=lambda each: each.name)
def test_programs_are_python_without_gaps(attack: zoo.Attack) -> None:
    compile(attack.program, attack.name, "exec", dont_inherit=True)
    assert "CANARY." not in attack.program
    tests = attack.problem.tests
    entry = tests.entry_point if isinstance(tests, (Calls, Asserts)) else None
    missing = {"deletes_itself", "says_pass", "says_outcome_pass"} | {"brings_its_own_builtins"}
    if entry is not None and attack.name not in missing and "os._exit(0)\n" not in attack.program:
        assert entry in _defined(attack.program)


def _defined(program: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(program)))
    names = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return names | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


@pytest.mark.parametrize("attack", [each for each in ATTACKS if not each.compiles], ids=lambda each: each.name)
def test_programs_that_attack_the_compiler_are_large(attack: zoo.Attack) -> None:
    assert 50_000 < len(attack.program) < 4 << 20


def test_no_program_knows_a_secret() -> None:
    for attack in ATTACKS:
        for secret in (CANARY.secret, CANARY.earlier_secret):
            assert secret not in attack.program, attack.name
        assert REFERENCE_ANSWER not in attack.program


def test_no_forging_program_contains_an_answer() -> None:
    for attack in ATTACKS:
        if attack.category != "forging":
            continue
        answers = _answers(attack.problem)
        for answer in answers:
            # what is shown to a person is no answer
            if attack.name != "sly_repr":
                assert str(answer) not in attack.program, (attack.name, answer)


def test_answers_are_found_in_every_kind_of_test() -> None:
    problems = {attack.name: attack.problem for attack in ATTACKS}
    assert 8_217_640_319_557 in _answers(problems["equals_everything"])
    assert 8_217_640_319_557 in _answers(problems["stop_iteration"])
    assert "8217640319557" in _answers(problems["prints_nothing"])


def test_escapes_that_look_for_a_secret_expect_the_secret_of_this_canary() -> None:
    other = zoo.Canary(**{**vars(CANARY), "secret": "another", "earlier_secret": "x" * 30})
    changed = [
        attack.name
        for attack, same in zip(ATTACKS, zoo.attacks(other), strict=True)
        if isinstance(attack.problem.tests, Calls)
        and isinstance(same.problem.tests, Calls)
        and attack.problem.tests.expected != same.problem.tests.expected
    ]
    assert {"reads_a_file", "reads_the_environment", "finds_the_earlier_program_among_objects"} <= set(changed)
    assert len(changed) >= 18


def test_programs_are_told_where_to_look() -> None:
    assert fill("open(CANARY.secret_file); CANARY.pid; CANARY.earlier_mark", CANARY) == (
        "open('/canary/file'); 424242; 'earlier-one'"
    )


def test_secrets_are_not_filled_in() -> None:
    asked = "CANARY.secret; CANARY.earlier_secret"
    assert fill(asked, CANARY) == asked


def test_limits_are_small_so_that_all_of_them_are_quick() -> None:
    for attack in ATTACKS:
        limits = attack.problem.limits
        assert limits.time <= 1.0
        assert limits.memory <= 512
        assert limits.output <= 16 << 20
        assert limits.threads <= 8


@pytest.mark.parametrize(("program", "problem"), HONEST, ids=[problem.id for _, problem in HONEST])
def test_honest_programs_compile(program: str, problem: Problem) -> None:
    compile(program, problem.id, "exec", dont_inherit=True)
