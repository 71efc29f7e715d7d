"""The judge: verdicts, and that they don't depend on how the work was done."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from dataclasses import replace

import pytest

from ra3kit.errors import DataError
from ra3kit.verify.problem import STATUSES, Asserts, Calls, Limits, Problem, Streams, Verdict
from ra3kit.verify.reference import complete
from ra3kit.verify.sandbox import Job, SandboxLost
from ra3kit.verify.verifier import Verifier, verify_all

SHORT = Limits(time=0.5, memory=128, output=1 << 20, threads=4)
ADD = Problem("add", Calls("add", [[1, 2], [3, 4], ["a", "b"]], [3, 7, "ab"]), limits=SHORT)
RIGHT = "def add(a, b):\n    return a + b\n"
DOUBLE = Problem(
    "double", Asserts("def check(f):\n    assert f(2) == 4\n    assert f('ab') == 'abab'\n", "double"), limits=SHORT
)
ECHO = Problem("echo", Streams(["ab\n", "1 2\n3"], ["ba\n", "2 1"]), limits=SHORT)
ECHO_RIGHT = "print(input()[::-1])\n"


def judge(program: str, problem: Problem, **options) -> Verdict:
    return verify_all([(program, problem)], workers=1, **options)[0]


CASES = [
    pytest.param(RIGHT, ADD, "pass", "", id="right"),
    pytest.param("def add(a, b): return a - b", ADD, "fail", "test 0: wrong answer", id="wrong"),
    pytest.param("def add(a, b): return str(a) + b", ADD, "fail", "TypeError", id="raises"),
    pytest.param("def add(a, b) return a", ADD, "fail", "did not load: SyntaxError", id="does not parse"),
    pytest.param("raise RuntimeError('x')", ADD, "fail", "did not load: RuntimeError: x", id="raises at import"),
    pytest.param("import sys\nsys.exit()", ADD, "fail", "did not load: SystemExit", id="ends itself"),
    pytest.param("x = 1", ADD, "fail", "name 'add' is not defined", id="defines nothing"),
    pytest.param("add = 3", ADD, "fail", "not callable", id="not a function"),
    pytest.param("def add(a, b):\n    while True: pass", ADD, "timeout", "CPU", id="loops"),
    pytest.param("def add(a, b):\n    return 10 ** 10 ** 10", ADD, "timeout", "CPU", id="loops in C"),
    pytest.param("import time\ndef add(a, b): time.sleep(60)", ADD, "timeout", "wall clock", id="sleeps"),
    pytest.param("def add(a, b): return bytearray(1 << 32)", ADD, "memory", "out of memory", id="memory"),
    pytest.param("x = [0] * (1 << 30)\n" + RIGHT, ADD, "memory", "before the first test", id="memory at import"),
    pytest.param("import os\ndef add(a, b): os._exit(0)", ADD, "crash", "exit code 0", id="leaves quietly"),
    pytest.param("import ctypes\ndef add(a, b): ctypes.string_at(0)", ADD, "crash", "signal 11", id="segfault"),
    pytest.param("def add(a, b): return 'x' * (1 << 22)", ADD, "fail", "output limit", id="says too much"),
    pytest.param("a = '\ud800'", ADD, "fail", "Unicode", id="not text"),
    pytest.param("#" * (5 << 20), ADD, "fail", "bytes", id="too long"),
    pytest.param(RIGHT, Problem("none", Calls("add", [], [])), "refused", "no tests", id="no tests"),
    pytest.param("def double(x): return x * 2", DOUBLE, "pass", "", id="check: right"),
    pytest.param("def double(x): return x + x + x[:0]", DOUBLE, "fail", "TypeError", id="check: raises"),
    pytest.param("def double(x): return 4", DOUBLE, "fail", "assert f('ab') == 'abab'", id="check: wrong"),
    pytest.param("def double(x):\n    while True: pass", DOUBLE, "timeout", "CPU", id="check: loops"),
    pytest.param("def double(x): return bytearray(1 << 32)", DOUBLE, "memory", "", id="check: memory"),
    pytest.param("import os\ndef double(x): os._exit(3)", DOUBLE, "crash", "exit code 3", id="check: leaves"),
    pytest.param("def dubble(x): return x", DOUBLE, "fail", "NameError", id="check: no such function"),
    pytest.param(ECHO_RIGHT, ECHO, "pass", "", id="streams: right"),
    pytest.param("print(input())", ECHO, "fail", "test 0: wrong output", id="streams: wrong"),
    pytest.param("print('ba')", ECHO, "fail", "test 1: wrong output", id="streams: wrong later"),
    pytest.param("print(int(input()))", ECHO, "fail", "ValueError", id="streams: raises"),
    pytest.param("import sys\nprint(input()[::-1])\nsys.exit(1)", ECHO, "fail", "exit status 1", id="streams: status"),
    pytest.param("while True: pass", ECHO, "timeout", "CPU", id="streams: loops"),
    pytest.param("x = bytearray(1 << 32)", ECHO, "memory", "out of memory", id="streams: memory"),
    pytest.param("while True: print('x' * 1000)", ECHO, "fail", "output limit", id="streams: says too much"),
    pytest.param("import os\nos.abort()", ECHO, "crash", "signal 6", id="streams: crash"),
]


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    found = verify_all([case.values[:2] for case in CASES])
    return {case.id: verdict for case, verdict in zip(CASES, found, strict=True)}


@pytest.mark.parametrize(("program", "problem", "status", "says"), CASES)
def test_verdicts(program, problem, status, says, verdicts, request):
    verdict = verdicts[request.node.callspec.id]
    assert verdict.status == status, verdict
    assert says in verdict.reason
    assert verdict.total == (1 if problem is DOUBLE else len(problem.tests.inputs))
    assert (verdict.passed == verdict.total) == (status == "pass") or verdict.total == 0
    ran = "Unicode" not in says and "bytes" not in says and status != "refused"
    assert verdict.isolation.startswith(("landlock", "bubblewrap")) or not ran


def test_every_verdict_but_our_own_failure_is_seen_above():
    assert {case.values[2] for case in CASES} == set(STATUSES) - {"internal"}


def test_alone_in_a_batch_early_or_from_memory_the_verdict_is_the_same(verdicts):
    chosen = [case for case in CASES if case.id != "sleeps"]  # which would take its wall clock each time

    async def work():
        async with Verifier(workers=2) as verifier:
            early = await asyncio.gather(*(verifier.verify(*case.values[:2], stop_early=True) for case in chosen))
            cases = [case.values[:2] for case in reversed(chosen)]
            first = await verifier.verify_batch(cases)
            return early, first[::-1], (await verifier.verify_batch(cases))[::-1]

    early, reversed_order, again = asyncio.run(work())
    for case, one, two, three in zip(chosen, early, reversed_order, again, strict=True):
        expected = verdicts[case.id]
        assert one.status == two.status == three.status == expected.status, case.id
        assert replace(two, seconds=0, cached=False).failure == expected.failure
        remembers = expected.status not in ("timeout", "refused") and expected.isolation != ""
        assert three.cached == remembers, case.id


def test_a_hundred_calls_stop_early_at_the_wrong_one():
    inputs = [[i] for i in range(400)]
    problem = Problem("square", Calls("f", inputs, [i * i for i in range(400)]), limits=replace(SHORT, time=5.0))
    program = "import time\ndef f(x):\n    if x > 50: time.sleep(0.01)\n    return x * x if x != 3 else 0"
    early = judge(program, problem, stop_early=True)
    assert early.status == "fail"
    assert early.failure["test"] == 3
    assert early.failure["got"] == "0"
    full = judge(program, problem)
    assert (full.status, full.passed, full.total) == ("fail", 399, 400)
    assert full.failure == early.failure
    assert early.passed < 399


def test_answers_that_are_right_but_for_their_bytes():
    problem = Problem("mix", Calls("f", [[0], [1], [2], [3]], [0.3, {1: 2, 3: 4}, [1, 2], 5]))
    program = "def f(x): return [0.1 + 0.2, {3: 4, 1: 2}, [1.0, 2.0], 5][x]"
    for early in (True, False):
        assert judge(program, problem, stop_early=early).status == "pass"


def test_long_answers_are_compared_by_digest_and_shown_when_they_differ():
    long = list(range(20_000))
    problem = Problem("long", Calls("f", [[0], [1]], [long, 1]))
    assert judge("def f(x): return list(range(20000)) if x == 0 else 1", problem).status == "pass"
    # equal, but not in its bytes
    assert judge("def f(x): return [float(i) for i in range(20000)] if x == 0 else 1", problem).status == "pass"
    wrong = judge("def f(x): return list(range(20001)) if x == 0 else 1", problem)
    assert (wrong.status, wrong.passed) == ("fail", 1)
    assert wrong.failure["got"].startswith("[0, 1, 2")


def test_arguments_are_fresh_for_every_program_and_mutation_changes_nothing_expected():
    problem = Problem("mutate", Calls("f", [[[1, 2]], [[1, 2]]], [[1, 2], [1, 2]]))
    assert judge("def f(x):\n    x.append(3)\n    return x[:2]", problem).status == "pass"
    aliased = "kept = []\ndef f(x):\n    kept.append(x)\n    kept[0].append(3)\n    return kept[0]"
    assert judge(aliased, problem).status == "fail"


def test_base_tests_have_a_verdict_of_their_own():
    problem = Problem("plus", Calls("f", [[1], [2], [3]], [1, 2, 3], base=2))
    assert (judge("def f(x): return x", problem).status, judge("def f(x): return x", problem).base) == ("pass", "pass")
    later = judge("def f(x): return min(x, 2)", problem)
    assert (later.status, later.base) == ("fail", "pass")
    sooner = judge("def f(x): return max(x, 2)", problem)
    assert (sooner.status, sooner.base) == ("fail", "fail")


def test_the_call_limit_ends_one_call_not_the_program():
    limits = Limits(time=20.0, call=0.5)
    problem = Problem("slow", Calls("f", [[0], [1], [2]], [0, 1, 2]), limits=limits)
    verdict = judge("def f(x):\n    while x == 1: pass\n    return x", problem)
    assert (verdict.status, verdict.passed) == ("timeout", 2)
    assert verdict.failure["test"] == 1
    assert verdict.seconds < 5


RECORDED = [
    ("def double(x): return x * 2", "pass"),
    ("def double(x): return x + x", "pass"),
    ("def double(x): return x * 2.0", "fail"),
    ("def double(x): return 4", "fail"),
    ("class L(int):\n    pass\ndef double(x): return L(4) if x == 2 else x + x", "pass"),
    ("import os\ndef double(x): os._exit(0)", "crash"),
    ("def double(x):\n    while True: pass", "timeout"),
    ("def double(x): raise MemoryError", "memory"),
    ("def double(x): raise ValueError('no')", "fail"),
    ("def double(x): return object()", "fail"),
    ("double(", "fail"),
]


def test_with_a_record_of_the_tests_calls_the_verdicts_are_the_same():
    (recorded,) = complete([replace(DOUBLE, solution="def double(x): return x * 2")])
    assert recorded.tests.recorded == Calls("double", ([2], ["ab"]), (4, "abab"))
    live = verify_all([(program, DOUBLE) for program, _ in RECORDED])
    replayed = verify_all([(program, recorded) for program, _ in RECORDED])
    for (program, status), one, two in zip(RECORDED, live, replayed, strict=True):
        assert one.status == two.status == status, (program, one, two)


def test_tests_that_ask_otherwise_than_recorded_are_run_against_the_program():
    code = "def check(f):\n    assert f(1) == 2 or f(5) == 7\n"
    (problem,) = complete([Problem("either", Asserts(code, "f"), solution="def f(x): return x + 1")])
    assert problem.tests.recorded.inputs == ([1],)
    assert judge("def f(x): return x + 2", problem).status == "pass"
    assert judge("def f(x): return x + 3", problem).status == "fail"


def test_a_nan_on_record_has_no_bytes_that_could_be_forged():
    code = "import math\ndef check(f):\n    assert math.isnan(f(3))\n"
    problem = Problem("nan", Asserts(code, "f", recorded=Calls("f", [[3]], [math.nan])), limits=SHORT)
    assert judge("import os\nos.write(32, b'?' + b'D' + bytes(4))\nos._exit(0)", problem).status == "fail"
    assert judge("def f(x): return float('nan')", problem).status == "pass"


def test_streams_stop_early_too():
    problem = Problem("second", Streams(["1", "2", "3"], ["1", "2", "3"]), limits=SHORT)
    program = "x = input()\nprint(x if x != '1' else 0)"
    assert judge(program, problem, stop_early=True).passed == 0
    assert judge(program, problem).passed == 2


def test_assertions_reach_classes_and_builtins_names_of_the_program():
    pairs = "class Pair:\n    def __init__(self, a): self.a = a\n"
    code = "assert total([Pair(1), Pair(2)]) == 3\np = Pair(5)\np.a = 6\nassert p.a == 6"
    program = pairs + "def total(ps): return sum(p.a for p in ps)"
    assert judge(program, Problem("pair", Asserts(code))).status == "pass"
    own = Problem("sum", Asserts("assert sum(10, 15) == 6\nassert sum(3, 4) == 9"))
    assert judge("def sum(a, b): return {10: 6, 3: 9}[a]", own).status == "pass"


def test_a_program_cannot_replace_the_functions_its_tests_use():
    problem = Problem("set", Asserts("assert set(f(1)) == set([1, 2])\nassert len(f(1)) == 2"))
    assert judge("def f(x): return [1]\ndef set(x): return 0\ndef len(x): return 2", problem).status == "fail"


def test_a_checker_decides_among_several_right_answers():
    checker = (
        "import sys\ngiven, answer, output = (open(name).read() for name in sys.argv[1:4])\n"
        "print(1 if int(output) % int(given) == 0 else 0)\n"
    )
    problem = Problem("multiple", Streams(["3", "5"], ["3", "5"], checker))
    assert judge("print(int(input()) * 7)", problem).status == "pass"
    assert judge("print(int(input()) + 1)", problem).status == "fail"
    assert judge("print('1')", problem).status == "fail"
    assert judge("print('what')", problem).status == "fail"


def test_tests_that_cannot_run_are_not_the_programs_fault():
    broken = [
        Asserts("import nothing_like_this\nassert f() == 1"),
        Asserts("def chek(f): pass", "f"),
        Asserts("(", "f"),
    ]
    verdicts = verify_all([("def f(): return 1", Problem(str(i), tests)) for i, tests in enumerate(broken)])
    assert [verdict.status for verdict in verdicts][1:] == ["refused", "refused"]
    assert all("tests" in verdict.reason for verdict in verdicts[1:])


def test_a_seed_fixes_a_program_that_draws():
    program = "import random, numpy\ndef f(): return [random.random(), float(numpy.random.rand()), hash('a')]"
    problem = Problem("draw", Calls("f", [[]], [None]))
    seen = {judge(program, problem).failure["got"] for _ in range(2)}
    assert len(seen) == 1


def test_a_server_that_dies_is_replaced_and_nobody_is_blamed():
    async def work():
        async with Verifier(workers=1, cache=False) as verifier:
            assert (await verifier.verify(RIGHT, ADD)).status == "pass"
            (server,) = verifier._slots[0].servers.values()
            os.killpg(server.process.pid, signal.SIGKILL)
            verdict = await verifier.verify(RIGHT, ADD)
            return verdict, list(verifier.internal_errors)

    verdict, _ = asyncio.run(work())
    assert verdict.status == "pass"


def test_a_failure_of_our_own_is_retried_then_said_apart(monkeypatch):
    from ra3kit.verify import verifier as module

    calls = []

    async def broken(*_):
        calls.append(1)
        raise SandboxLost("a test broke it")

    monkeypatch.setattr(module, "judge", broken)
    first, second = verify_all([(RIGHT, ADD), (RIGHT, ADD)], workers=1)
    assert first.status == second.status == "internal"
    assert "a test broke it" in first.reason
    assert len(calls) == 2 * module.ATTEMPTS


def test_where_a_wall_cannot_be_put_up_the_program_is_not_run():
    async def work():
        async with Verifier(workers=1) as verifier:
            (server,) = verifier._slots[0].servers.values()
            job = Job("calls", [RIGHT.encode(), b""], 1.0, 1 << 28, 1 << 20, threads="many")
            return await server.run(job)

    with pytest.raises(SandboxLost, match="a wall could not be put up: TypeError"):
        asyncio.run(work())


@pytest.mark.parametrize("limit", ["time", "call", "memory", "output", "threads"])
@pytest.mark.parametrize("value", [0, -5, math.inf, math.nan])
def test_limits_that_limit_nothing_are_refused(limit, value):
    with pytest.raises(ValueError, match=f"Limits.{limit}"):
        Limits(**{limit: value})


def test_a_batch_has_a_deadline():
    sleeper = Problem("sleep", ADD.tests, limits=Limits(time=60.0))
    pairs = [("import time\ndef add(a, b): time.sleep(60)", sleeper)] + [(RIGHT, ADD)] * 3
    done = []
    verdicts = verify_all(pairs, workers=2, deadline=3.0, on_done=lambda index, verdict: done.append(index))
    assert [verdict.status for verdict in verdicts] == ["internal", "pass", "pass", "pass"]
    assert "3 s" in verdicts[0].reason
    assert sorted(done) == [0, 1, 2, 3]


def test_a_checker_that_executes_what_it_reads_is_refused():
    problem = Problem("eval", Streams(["1"], ["1"], "import sys\nprint(eval(open(sys.argv[3]).read()))"))
    verdict = judge("print(1)", problem)
    assert (verdict.status, verdict.passed) == ("refused", 0)
    assert "eval()" in verdict.reason


def test_what_a_program_wrote_cannot_steer_a_terminal():
    verdict = judge("def add(a, b): raise ValueError('\\x1b[2J\\r')", ADD)
    assert "\x1b" not in verdict.reason
    assert "\\x1b[2J\\r" in verdict.reason


def test_packed_values_are_read_from_our_own_bytes_only():
    forged = (
        "import os, marshal, struct, zlib, hashlib\n"
        "body = marshal.dumps(('packed', (bytes(32), 3, zlib.compress(marshal.dumps(3)))), 2)\n"
        "os.write(32, struct.pack('<cI', b'X', len(body)) + body + struct.pack('<cI', b'D', 0))\nos._exit(0)\n"
    )
    with pytest.raises(DataError, match="packed"):
        complete([Problem("hostile", Calls("f", [[1]], ()), solution=forged)])


def test_nothing_to_judge():
    assert verify_all([]) == []


def test_inside_a_running_event_loop():
    async def work():
        return verify_all([(RIGHT, ADD)], workers=1)

    assert asyncio.run(work())[0].status == "pass"


def test_isolation_none_is_said_in_every_verdict():
    verdict = judge(RIGHT, ADD, isolation="none")
    assert (verdict.status, verdict.isolation) == ("pass", "none")
