"""Attacks by someone who has read the harness: its frames, its wire format, its referee, its descriptors."""

from __future__ import annotations

import math

from ra3kit.verify.problem import Asserts, Calls, Limits
from ra3kit.verify.zoo.attack import DONE, LIMITS, Collection
from ra3kit.verify.zoo.exhaustion import BRIEF, NEVER, NEVER_CHECK
from ra3kit.verify.zoo.forging import CHECK, CHECK_ALL, CHECK_LISTS, CHECK_RAISES, LISTS, LONG, NUMBERS, SETS, STREAM

INSIDER_FORGING = Collection("forging")
INSIDER_EXHAUSTION = Collection("exhaustion")
INSIDER_ESCAPE = Collection("escape")

_FRAME = """
        import os
        def frame(kind, payload):
            return kind + len(payload).to_bytes(4, "little") + payload
        def send(*frames):
            for descriptor in (32, 33, 34):
                try:
                    os.write(descriptor, b"".join(frames))
                except OSError:
                    pass
"""
"""Start of programs that write frames of their own."""

RECORDED = Asserts(CHECK_ALL.code, "f", recorded=NUMBERS)
RECORDED_RAISES = Asserts(CHECK_RAISES.code, "f", recorded=Calls("f", [[-1]], ["never"]))
RECORDED_NAN = Asserts(
    "def check(candidate):\n    got = candidate(3)\n    assert got != got\n",
    "f",
    recorded=Calls("f", [[3]], [math.nan]),
)
RECORDED_CHAIN = Asserts(
    "def check(candidate):\n    assert candidate(candidate(3)) == 3 and candidate(3) > 10**12\n",
    "f",
    recorded=Calls("f", [[3], [8_217_640_319_557], [3]], [8_217_640_319_557, 3, 8_217_640_319_557]),
)
WITHOUT_IMPORT = Asserts("assert math.isclose(f(3), 8217.640319557, rel_tol=1e-3)\n")
CHECK_FILTERED = Asserts(
    "def check(candidate):\n"
    "    wrong = list(filter(lambda case: candidate(case[0]) != case[1], [(3, 8217640319557), (11, 5403196624811)]))\n"
    "    assert not wrong, wrong\n",
    "f",
)
CHECK_TWICE = Asserts(
    "def check(candidate):\n"
    "    answers = [candidate(3), candidate(11)]\n"
    "    assert answers == [8217640319557, 5403196624811] and sum(answers) == 13620836944368\n",
    "f",
)


# --- forging ----------------------------------------------------------------------------------------------------------


@INSIDER_FORGING.add("StopIteration as an answer on record ends the loop over the test cases", RECORDED)
def stop_iteration_on_record() -> str:
    return """
        def f(n): raise StopIteration
    """


@INSIDER_FORGING.add("no answer on record, under tests that expect any exception", RECORDED_RAISES)
def ends_on_record() -> str:
    return """
        import os
        def f(n): os._exit(0)
    """


@INSIDER_FORGING.add("an object on record, which sends the tests to the program, where it has gone", RECORDED_RAISES)
def deviates_on_record() -> str:
    return """
        def f(n): return object()
    """


@INSIDER_FORGING.add("the mark that stands in a record for what has no bytes of its own", RECORDED_NAN)
def writes_the_placeholder() -> str:
    return """
        import os
        os.write(32, b"?" + b"D" + bytes(4))
        os._exit(0)
    """


@INSIDER_FORGING.add("arguments of later calls on record are answers to earlier ones", RECORDED_CHAIN)
def reads_later_arguments() -> str:
    return """
        import sys
        def f(n):
            frame = sys._getframe(1)
            calls = frame.f_locals.get("inputs") or [[n], [n]]
            return max(arguments[0] for arguments in calls) if n == 3 else 3
    """


@INSIDER_FORGING.add("an exception frame that names what ends loops, past any check in its own process", CHECK_FILTERED)
def forges_an_exception() -> str:
    return (
        _FRAME
        + """
        import marshal
        there = frame(b"X", marshal.dumps(("?", ("f", 0)), 2))
        send(frame(b"D", b""), there, *[frame(b"E", b"StopIteration: ")] * 4)
        def f(n): return n
    """
    )


@INSIDER_FORGING.add("a module that the tests use but don't import, taken from the program", WITHOUT_IMPORT)
def brings_a_missing_module() -> str:
    return """
        class Math:
            def isclose(self, *args, **options): return True
        math = Math()
        def f(n): return 0.0
    """


@INSIDER_FORGING.add("the wire's own mark for an expected value too long to keep", LONG)
def forges_a_digest_value() -> str:
    return (
        _FRAME
        + """
        import marshal
        send(*[frame(b"X", marshal.dumps(("packed", (bytes(32), 50_000, None)), 2))] * 2, frame(b"D", b""))
        os._exit(0)
    """
    )


@INSIDER_FORGING.add("digest frames with digests of nothing, in place of short answers", NUMBERS)
def digests_of_short_answers() -> str:
    return (
        _FRAME
        + """
        import hashlib
        for payload in (bytes(40), hashlib.sha256(b"").digest() + bytes(8), b"", bytes(64)):
            send(frame(b"H", payload))
        os._exit(0)
    """
    )


@INSIDER_FORGING.add("arrays that no encoder writes: shapes of nothing, types of everything", LISTS)
def forges_arrays() -> str:
    return (
        _FRAME
        + """
        import marshal
        for body in (("<i8", (0, 3), []), ("<U0", (3,), ["", "", ""])):
            send(frame(b"X", marshal.dumps(("array", body), 2)))
        os._exit(0)
    """
    )


@INSIDER_FORGING.add("scalars of numpy with types that compare as they like", NUMBERS)
def forges_scalars() -> str:
    return (
        _FRAME
        + """
        import marshal
        send(frame(b"X", marshal.dumps(("scalar", ("<f8", float("nan"))), 2)),
             frame(b"X", marshal.dumps(("array", ("?", (), [True])), 2)))
        os._exit(0)
    """
    )


@INSIDER_FORGING.add(
    "marshal's own types, for a judge that reads answers with marshal: code, references, floats as text", NUMBERS
)
def forges_marshal() -> str:
    return (
        _FRAME
        + """
        import marshal
        code = marshal.dumps(compile("1", "x", "eval"))
        send(frame(b"V", code), frame(b"V", b"f\\x031.5"), frame(b"V", b"r\\0\\0\\0\\0"))
        os._exit(0)
    """
    )


@INSIDER_FORGING.add("every possible answer to the first test, in as many frames", NUMBERS)
def answers_everything() -> str:
    return (
        _FRAME
        + """
        send(*(frame(b"V", b"i" + n.to_bytes(4, "little")) for n in range(20_000)))
        os._exit(0)
    """
    )


@INSIDER_FORGING.add("the end of the calls is announced before the first answer", NUMBERS)
def is_done_at_once() -> str:
    return (
        _FRAME
        + """
        send(frame(b"D", b""), frame(b"D", b""), frame(b"D", b""))
        os._exit(0)
    """
    )


@INSIDER_FORGING.add("half an answer, then nothing: the rest may be taken from the expected bytes", NUMBERS)
def half_an_answer() -> str:
    return """
        import os
        os.write(32, b"V" + (9).to_bytes(4, "little") + b"l")
        os._exit(0)
    """


@INSIDER_FORGING.add("the function is answered as a type of the tests' own process", CHECK_TWICE)
def candidate_is_a_type() -> str:
    return """
        f = bool
    """


@INSIDER_FORGING.add(
    "the function is answered as plain data, or as an object that stays behind under any number", CHECK
)
def candidate_is_forged() -> str:
    return (
        _FRAME
        + """
        import marshal
        send(frame(b"D", b""), frame(b"X", marshal.dumps(("?", ("tests.check", 2**70)), 2)),
             *[frame(b"X", marshal.dumps(("?", ("builtins.int", -1)), 2))] * 5)
        def f(n): return f
    """
    )


@INSIDER_FORGING.add("lengths and items of an object that stayed behind are whatever the tests ask for", CHECK_LISTS)
def lies_about_itself() -> str:
    return """
        class Number(int):
            def __eq__(self, other): return True
            def __index__(self): return 3
        class Sly:
            def __len__(self): return Number(3)
            def __getitem__(self, key): return Number(key)
            def __iter__(self): return self
            def __next__(self): raise StopIteration
            __class__ = list
        def f(n): return Sly()
    """


@INSIDER_FORGING.add("iterating over it leads to itself, again and again", CHECK_LISTS)
def iterates_into_itself() -> str:
    return """
        import builtins
        class Sly:
            def __len__(self): return 3
            def __getitem__(self, key): return [8217][key]
        sly = Sly()
        builtins.list = lambda value: sly
        def f(n): return sly
    """


@INSIDER_FORGING.add("the server object is up the stack: its socket, its children, its clock", NUMBERS)
def uses_the_server() -> str:
    return """
        import json, os, socket, sys
        frame = sys._getframe()
        while frame is not None:
            server = frame.f_locals.get("self")
            if type(server).__name__ == "Server":
                for number in range(100):
                    report = {"job": number, "code": 0, "seconds": 0.0, "killed": None}
                    try:
                        server.control.send(json.dumps(report).encode())
                    except OSError:
                        pass
                server.kill = server.look = lambda *args: None
                for child in server.children.values():
                    child.seconds = child.wall_end = float("inf")
            frame = frame.f_back
        def f(n): return n
    """


@INSIDER_FORGING.add("the harness's functions are replaced through its frames, the encoder first", NUMBERS)
def replaces_the_encoder() -> str:
    return """
        import sys
        def f(n):
            frame = sys._getframe(1)
            frame.f_globals["encode"] = frame.f_globals["wire"].encode = lambda *args: (b"D", b"")
            frame.f_globals["answer"] = frame.f_globals["frames"].answer = lambda *args: b"D" + bytes(4)
            frame.f_globals["pack"] = lambda *args: b""
            return n
    """


@INSIDER_FORGING.add("an uncaught exception's message in place of the output it stands behind", STREAM)
def message_longer_than_the_output() -> str:
    return """
        import os
        os.write(1, (2_000).to_bytes(4, "little"))
        os._exit(77)
    """


# --- exhaustion -------------------------------------------------------------------------------------------------------


@INSIDER_EXHAUSTION.add(
    "a fraction whose greatest common divisor takes the referee minutes", NEVER, Limits(1.0, None, 256, 8 << 20, 8)
)
def endless_fraction() -> str:
    return """
        import fractions
        def attack():
            answer = fractions.Fraction(1, 3)
            answer._numerator, answer._denominator = (1 << 12_000_000) + 1, (1 << 11_000_000) - 1
            return answer
    """


@INSIDER_EXHAUSTION.add("a range that a rule turns into a set", SETS)
def endless_range() -> str:
    return """
        def f(n): return range(10**15)
    """


@INSIDER_EXHAUSTION.add("a payload of brackets only", NEVER_CHECK)
def payload_of_brackets() -> str:
    return (
        _FRAME
        + """
        def attack():
            send(frame(b"V", b"(\\1\\0\\0\\0" * 150_000 + b"N"))
    """
    )


@INSIDER_EXHAUSTION.add("an array that is small on the wire and large in memory", NEVER_CHECK)
def array_bomb() -> str:
    return (
        _FRAME
        + """
        import marshal
        def attack():
            send(frame(b"X", marshal.dumps(("array", ("<U100000000", (9,), [""] * 9)), 2)))
    """
    )


@INSIDER_EXHAUSTION.add("numbers as text, with exponents that make them long when they are compared", STREAM)
def exponent_bomb() -> str:
    return """
        for _ in range(3):
            print("1e" + "9" * 18)
    """


@INSIDER_EXHAUSTION.add("a thread that works on when the tests have ended", NEVER_CHECK, BRIEF)
def works_on_after_the_tests() -> str:
    return """
        import threading, time
        def work():
            end = time.monotonic() + 20
            while time.monotonic() < end:
                pass
        threading.Thread(target=work).start()
        def attack(): return 1
    """


@INSIDER_EXHAUSTION.add("answers written by several threads at once, torn apart", NEVER_CHECK, LIMITS)
def torn_answers() -> str:
    return (
        _FRAME
        + """
        import threading
        def attack():
            def write():
                for _ in range(300):
                    send(frame(b"V", b"N")[:-1])
            threads = [threading.Thread(target=write) for _ in range(4)]
            for thread in threads: thread.start()
            return 1
    """
    )


# --- escape -----------------------------------------------------------------------------------------------------------


@INSIDER_ESCAPE.add("what is installed beside the packages it may import", DONE)
def imports_the_neighbours() -> str:
    return """
        import importlib, os, sys
        def attack():
            folders = [folder for finder in sys.meta_path for folder in getattr(finder, "packages", {}).values()]
            try:
                import numpy
                folders.append(os.path.dirname(os.path.dirname(numpy.__file__)))
            except ImportError:
                pass
            folders += [os.path.join(path, "site-packages") for path in list(sys.path)]
            sys.path += folders
            for name in ("ra3kit", "torch", "pip", "setuptools", "transformers", "lightning", "pytest"):
                try:
                    importlib.import_module(name)
                    return True
                except (ImportError, OSError):
                    pass
            return False
    """


@INSIDER_ESCAPE.add("descriptors the server forgot: its ruleset, its control socket, files in /proc", DONE)
def finds_forgotten_descriptors() -> str:
    return """
        import os, stat
        def attack():
            found = []
            for descriptor in range(3, 1 << 12):
                try:
                    kind = os.fstat(descriptor).st_mode
                except OSError:
                    continue
                if descriptor != 32 or not stat.S_ISFIFO(kind):
                    found.append(descriptor)
            return bool(found)
    """


@INSIDER_ESCAPE.add("standard error leads to a pipe that outlives the program", DONE)
def shares_standard_error() -> str:
    return """
        import os, stat
        def attack():
            return any(stat.S_ISFIFO(os.fstat(descriptor).st_mode) for descriptor in (0, 1, 2))
    """


@INSIDER_ESCAPE.add("memory shared with the server and the programs after it", DONE)
def writes_shared_memory() -> str:
    return """
        import ctypes, mmap
        def attack():
            libc = ctypes.CDLL(None)
            libc.mremap.restype = ctypes.c_void_p
            # a size of 0 duplicates a mapping, and works on shared ones only
            start, end = id(object()) >> 20 << 20, (id(object()) >> 20) + 64 << 20
            for address in range(start, end, 4096):
                copy = libc.mremap(ctypes.c_void_p(address), ctypes.c_size_t(0), ctypes.c_size_t(4096), 1)
                if copy != ctypes.c_void_p(-1).value and libc.mprotect(ctypes.c_void_p(copy), 4096, 3) == 0:
                    return True
            return False
    """
