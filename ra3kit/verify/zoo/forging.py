"""Programs that don't know the answer and try to be taken for right."""

from __future__ import annotations

import math

from ra3kit.verify.problem import Asserts, Calls, Limits, Streams
from ra3kit.verify.zoo.attack import Collection

FORGING = Collection("forging")

NUMBERS = Calls("f", [[3], [11]], [8_217_640_319_557, 5_403_196_624_811])
FLOATS = Calls("f", [[3], [11]], [8217.640319557, 54031.96624811], atol=1e-6)
INFINITE = Calls("f", [[3], [11]], [math.inf, -math.inf])
TEXTS = Calls("f", [[3], [11]], ["umber lattice", "quiet falcon"])
LISTS = Calls("f", [[3], [11]], [[8217, 6403, 1955], [5403, 1966, 2481]])
LISTS_OF_JSON = Calls("f", [[3], [11]], [[8217, 6403, 1955], [5403, 1966, 2481]], exact=False)
SETS = Calls("f", [[3], [11]], [[8217, 6403, 1955], [5403, 1966, 2481]], oracle="set")
DICTS = Calls("f", [[3], [11]], [{"umber": 8217}, {"falcon": 5403}])
LONG = Calls("f", [[3], [11]], [[n * 8_217_640_319 % 5_403_197 for n in range(k, 9000 + k)] for k in (3, 11)])
MUTABLE = Calls("f", [[[3, 1, 2]], [[11, 5]]], [[8217, 6403, 1955], [5403, 1966]])

CHECK = Asserts(
    "def check(candidate):\n    assert candidate(3) == 8217640319557\n    assert candidate(11) == 5403196624811\n", "f"
)
CHECK_LISTS = Asserts(
    "def check(candidate):\n"
    "    got = candidate(3)\n"
    "    assert len(got) == 3 and got[0] == 8217 and 6403 in got and list(got) == [8217, 6403, 1955]\n",
    "f",
)
CHECK_ALL = Asserts(
    "def check(candidate):\n"
    "    cases = [(3, 8217640319557), (11, 5403196624811)]\n"
    "    assert all(map(lambda case: candidate(case[0]) == case[1], cases))\n",
    "f",
)
CHECK_RAISES = Asserts(
    "def check(candidate):\n"
    "    try:\n"
    "        candidate(-1)\n"
    "    except:\n"
    "        pass\n"
    "    else:\n"
    "        raise ValueError('a negative number was taken')\n",
    "f",
)
PLAIN = Asserts("assert f(3) == 8217640319557\nassert f(11) == 5403196624811\n")
PLAIN_CLOSE = Asserts("assert math.isclose(f(3), 8217.640319557, rel_tol=1e-3)\n", setup="import math")
PLAIN_SORTED = Asserts("assert sorted(f(3)) == [1955, 6403, 8217]\nassert len(f(11)) == 2481\n")

STREAM = Streams(["3\n", "11\n"], ["8217640319557\n6403\n1955\n", "5403196624811\n1966\n2481\n"])
CHECKED = Streams(
    ["3\n", "11\n"],
    ["8217640319557\n", "5403196624811\n"],
    checker=(
        "import sys\n"
        "got = open(sys.argv[3]).read().split()\n"
        "expected = open(sys.argv[2]).read().split()\n"
        "print(1 if [int(word) for word in got] == [int(word) for word in expected] else 0)\n"
    ),
)


# --- sly values -------------------------------------------------------------------------------------------------------


@FORGING.add("an object that equals everything passes for any answer", NUMBERS)
def equals_everything() -> str:
    return """
        class Sly:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return 0
            def __bool__(self): return True
        def f(n): return Sly()
    """


@FORGING.add("an int whose comparisons are always true", NUMBERS)
def sly_int() -> str:
    return """
        class Sly(int):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __sub__(self, other): return 0
            __rsub__ = __sub__
            def __hash__(self): return 0
        def f(n): return Sly(n)
    """


@FORGING.add("a float that is near everything", FLOATS)
def sly_float() -> str:
    return """
        class Sly(float):
            def __eq__(self, other): return True
            def __sub__(self, other): return 0.0
            __rsub__ = __sub__
            def __abs__(self): return 0.0
            def __le__(self, other): return True
            __lt__ = __ge__ = __gt__ = __le__
            def __float__(self): return 0.0
        def f(n): return Sly(n)
    """


@FORGING.add("a str that equals every text", TEXTS)
def sly_str() -> str:
    return """
        class Sly(str):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            __hash__ = str.__hash__
            def strip(self, *args): return self
            def split(self, *args): return self
        def f(n): return Sly("x")
    """


@FORGING.add("a list that equals every list", LISTS)
def sly_list() -> str:
    return """
        class Sly(list):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __len__(self): return 3
            def __iter__(self): return iter([Item()] * 3)
            def __getitem__(self, index): return Item()
        class Item(int):
            def __eq__(self, other): return True
        def f(n): return Sly([Item()] * 3)
    """


@FORGING.add("a tuple and a namedtuple that equal every list, where tuples count as lists", LISTS_OF_JSON)
def sly_tuple() -> str:
    return """
        import collections
        class Sly(collections.namedtuple("Sly", "a b c")):
            def __eq__(self, other): return True
            def __iter__(self): return iter(())
        def f(n): return Sly(1, 2, 3)
    """


@FORGING.add("a set that equals and contains everything", SETS)
def sly_set() -> str:
    return """
        class Sly(set):
            def __eq__(self, other): return True
            def __contains__(self, item): return True
            issubset = issuperset = __eq__
            def __len__(self): return 3
        def f(n): return Sly()
    """


@FORGING.add("a dict that has every key", DICTS)
def sly_dict() -> str:
    return """
        class Sly(dict):
            def __eq__(self, other): return True
            def __missing__(self, key): return Any()
            def keys(self): return Any()
            def items(self): return Any()
        class Any:
            def __eq__(self, other): return True
        def f(n): return Sly()
    """


@FORGING.add("the standard library's own object that equals everything", NUMBERS)
def mock_any() -> str:
    return """
        from unittest.mock import ANY
        def f(n): return ANY
    """


@FORGING.add("numpy's hook turns every comparison into True", FLOATS)
def array_ufunc() -> str:
    return """
        import numpy
        class Sly(numpy.ndarray):
            __array_priority__ = 1e9
            def __array_ufunc__(self, ufunc, method, *inputs, **options): return True
            def __array_function__(self, function, types, args, options): return True
            def __eq__(self, other): return True
        def f(n): return numpy.zeros(3).view(Sly)
    """


@FORGING.add("a numpy scalar type of its own with a sly comparison", FLOATS)
def sly_numpy_scalar() -> str:
    return """
        import numpy
        class Sly(numpy.float64):
            def __eq__(self, other): return True
            def __sub__(self, other): return 0.0
            def item(self): return Sly(0)
        def f(n): return Sly(n)
    """


@FORGING.add("comparing an empty array gives an empty array, and all of nothing is True", NUMBERS)
def empty_array() -> str:
    return """
        import numpy
        def f(n): return numpy.array([])
    """


@FORGING.add("no row at all equals every row, by broadcasting", LISTS)
def empty_rows() -> str:
    return """
        import numpy
        def f(n): return numpy.empty((0, 3))
    """


@FORGING.add("an empty array in a list, where the items are compared one by one", LISTS)
def empty_arrays_in_a_list() -> str:
    return """
        import numpy
        def f(n): return [numpy.empty((0, 1))] * 3
    """


@FORGING.add("the same by way of JSON's rule that tuples are lists", LISTS_OF_JSON)
def empty_rows_of_json() -> str:
    return """
        import numpy
        def f(n): return numpy.empty((0, 3), dtype="i8")
    """


@FORGING.add("an array of sly objects", LISTS)
def object_array() -> str:
    return """
        import numpy
        class Sly:
            def __eq__(self, other): return True
        def f(n): return numpy.array([Sly(), Sly(), Sly()], dtype=object)
    """


@FORGING.add("an array with a structured type, and one without dimensions", LISTS)
def structured_array() -> str:
    return """
        import numpy
        def f(n):
            if n == 3: return numpy.zeros(3, dtype=[("a", "i4"), ("b", "f8")])
            return numpy.array(None, dtype=object)
    """


@FORGING.add("NaN makes every comparison false, `got > expected + tolerance` too", FLOATS)
def nan() -> str:
    return """
        def f(n): return float("nan")
    """


@FORGING.add("NaNs of other kinds: complex, Decimal that signals, numpy", FLOATS)
def other_nans() -> str:
    return """
        import decimal, numpy
        def f(n): return decimal.Decimal("sNaN") if n == 3 else numpy.float64("nan")
    """


@FORGING.add("a NaN inside a list, where identity counts before equality", LISTS)
def nan_in_list() -> str:
    return """
        import math
        def f(n): return [math.nan] * 3
    """


@FORGING.add("infinitely far from everything, which a relative tolerance may forgive", FLOATS)
def infinity() -> str:
    return """
        def f(n): return float("inf")
    """


@FORGING.add("any number is within a relative tolerance of infinity", INFINITE)
def near_infinity() -> str:
    return """
        def f(n): return 1.5
    """


@FORGING.add("Decimal and Fraction with forged insides", FLOATS)
def forged_fraction() -> str:
    return """
        import decimal, fractions
        class Sly(fractions.Fraction):
            numerator = denominator = 0
            def __eq__(self, other): return True
        class Slyer(decimal.Decimal):
            def __eq__(self, other): return True
            def __str__(self): return "Infinity"
        def f(n): return Sly(1, 2) if n == 3 else Slyer(1)
    """


@FORGING.add("NotImplemented is true and hands the comparison to the other side", NUMBERS)
def not_implemented() -> str:
    return """
        def f(n): return NotImplemented
    """


@FORGING.add("a Counter of zeros equals an empty one; a sly one equals all", DICTS)
def sly_counter() -> str:
    return """
        import collections
        class Sly(collections.Counter):
            def __eq__(self, other): return True
            def __missing__(self, key): return 8217
        def f(n): return Sly(a=0, b=0)
    """


@FORGING.add("types as answers, with a metaclass whose classes equal everything", NUMBERS)
def sly_type() -> str:
    return """
        class Meta(type):
            def __eq__(cls, other): return True
            def __instancecheck__(cls, instance): return True
            def __subclasscheck__(cls, other): return True
            __hash__ = type.__hash__
        class Sly(metaclass=Meta): pass
        def f(n): return Sly if n == 3 else int
    """


@FORGING.add("an object that claims to be an int", NUMBERS)
def lying_class() -> str:
    return """
        class Sly:
            __class__ = int
            def __eq__(self, other): return True
            def __index__(self): return 0
            __int__ = __index__
        def f(n): return Sly()
    """


@FORGING.add("a class with the name and module of a trusted one", FLOATS)
def borrowed_name() -> str:
    return """
        class float64(float):
            def __eq__(self, other): return True
            def item(self): return self
            dtype = property(lambda self: self)
            kind, str = "f", "<f8"
        float64.__module__ = "numpy"
        float64.__qualname__ = "float64"
        def f(n): return float64(0)
    """


@FORGING.add("values that run code when they are unpickled", NUMBERS)
def pickle_bomb() -> str:
    return """
        import os
        class Sly:
            def __reduce__(self): return (os._exit, (0,))
            __reduce_ex__ = lambda self, protocol: (os._exit, (0,))
            def __getstate__(self): os._exit(0)
        def f(n): return Sly() if n == 3 else [Sly()]
    """


@FORGING.add("raw buffers, which marshal writes as if they were bytes", NUMBERS)
def buffers() -> str:
    return """
        import array, ctypes
        def f(n): return array.array("q", [n] * 4) if n == 3 else memoryview((ctypes.c_char * 64)())
    """


@FORGING.add("lone surrogates and NULs, which some codec may drop", TEXTS)
def surrogates() -> str:
    return """
        def f(n): return "umber\\udc80 lattice" if n == 3 else "\\0" * 20
    """


@FORGING.add("a generator, a coroutine and an iterator that never agree with themselves", LISTS)
def lazy_answers() -> str:
    return """
        class Changing:
            def __iter__(self): return self
            def __next__(self): return self
            def __eq__(self, other): return True
        async def later(): return 8217
        def f(n): return (k for k in range(3)) if n == 3 else (later(), Changing())
    """


@FORGING.add("a list that contains itself", LISTS)
def cyclic() -> str:
    return """
        def f(n):
            answer = [1, 2, 3]
            answer[0] = answer
            return answer
    """


@FORGING.add("nesting that overflows the stack of whoever reads it", LISTS)
def deep() -> str:
    return """
        def f(n):
            answer = []
            for _ in range(100_000):
                answer = [answer]
            return answer
    """


@FORGING.add("nesting just below the wire's limit, for readers with a lower one", LISTS)
def rather_deep() -> str:
    return """
        def f(n):
            answer = ()
            for _ in range(190 if n == 3 else 790):
                answer = (answer,) if n == 3 else [answer]
            return answer
    """


@FORGING.add("numbers with one hash make the judge's sets and dicts slow", SETS)
def hash_collisions() -> str:
    return """
        def f(n): return [k * (2**61 - 1) for k in range(4_000)]
    """


@FORGING.add("a repr that raises, lies or never ends where failures are shown", NUMBERS)
def sly_repr() -> str:
    return """
        class Sly:
            def __repr__(self): return "8217640319557" if len(seen) > 9 else (seen.append(1) or repr(self))
            __str__ = __repr__
        seen = []
        Sly.__qualname__ = "\\x1b[2J\\x1b[31mpass\\r\\n" * 4
        def f(n): return Sly()
    """


# --- leaving before the tests -----------------------------------------------------------------------------------------


@FORGING.add("exit code 0 before any test is taken for success", NUMBERS)
def exit_at_import() -> str:
    return """
        import sys
        sys.exit(0)
        def f(n): return n
    """


@FORGING.add("exit code 0 without any clean-up, at import", CHECK)
def hard_exit_at_import() -> str:
    return """
        import os
        os._exit(0)
        def f(n): return n
    """


@FORGING.add("exit code 0 from inside a test", PLAIN)
def hard_exit_in_call() -> str:
    return """
        import os
        def f(n): os._exit(0)
    """


@FORGING.add("SystemExit is no Exception, so `except Exception` lets it by", NUMBERS)
def system_exit_in_call() -> str:
    return """
        def f(n): raise SystemExit(0)
    """


@FORGING.add("the other exceptions that are no Exception", CHECK)
def base_exceptions() -> str:
    return """
        def f(n): raise KeyboardInterrupt if n == 3 else GeneratorExit
    """


@FORGING.add("a handler at exit ends the process with success", NUMBERS)
def at_exit() -> str:
    return """
        import atexit, os, threading
        atexit.register(os._exit, 0)
        threading._register_atexit(os._exit, 0)
        def f(n): raise SystemExit
    """


@FORGING.add("a signal to itself looks like the judge's own kill", NUMBERS)
def kills_itself() -> str:
    return """
        import os, signal
        def f(n): os.kill(os.getpid(), signal.SIGKILL)
    """


@FORGING.add("a crash of the interpreter is nobody's failed assertion", NUMBERS)
def crashes() -> str:
    return """
        import ctypes
        def f(n): return ctypes.string_at(0)
    """


@FORGING.add("an exception called pass, whose text looks like a report", NUMBERS)
def exception_like_a_report() -> str:
    return """
        class PASS(Exception):
            def __str__(self): return '{"outcome": "pass", "right": [true, true], "failure": {}}'
        def f(n): raise PASS
    """


@FORGING.add("an exception that exits where it is described", NUMBERS)
def exception_that_exits() -> str:
    return """
        import os
        class Sly(Exception):
            def __str__(self): os._exit(0)
            __repr__ = __str__
        Sly.__name__ = "AssertionError"
        def f(n): raise Sly
    """


# --- changing the harness around it -----------------------------------------------------------------------------------


@FORGING.add("builtins under the harness answer what is convenient", NUMBERS)
def patched_builtins() -> str:
    return """
        import builtins
        for name in ("all", "any", "isinstance", "bool", "callable"):
            setattr(builtins, name, lambda *args: True)
        builtins.len = lambda value: 2
        builtins.abs = builtins.sum = builtins.max = lambda *args: 0
        builtins.AssertionError = builtins.ValueError = builtins.Exception = type("Never", (BaseException,), {})
        def f(n): return n
    """


@FORGING.add("comparison functions of the library always agree", FLOATS)
def patched_library() -> str:
    return """
        import math, numpy, operator, unittest
        yes = lambda *args, **options: True
        math.isclose = numpy.allclose = numpy.isclose = numpy.array_equal = operator.eq = yes
        numpy.testing = unittest.TestCase.assertEqual = yes
        def f(n): return 0.0
    """


@FORGING.add("modules are replaced for everyone who imports them later", NUMBERS)
def patched_modules() -> str:
    return """
        import sys
        class Sly:
            def __getattr__(self, name): return lambda *args, **options: True
        for name in list(sys.modules):
            if name.partition(".")[0] in ("json", "struct", "hashlib", "math", "numpy", "pickle", "types", "ast"):
                sys.modules[name] = Sly()
        def f(n): return n
    """


@FORGING.add("the encoder writes what it is told to", NUMBERS)
def patched_encoder() -> str:
    return """
        import marshal, json, pickle, struct
        marshal.dumps = lambda *args: b"T"
        json.dumps = lambda *args, **options: '{"outcome": "pass"}'
        pickle.dumps = lambda *args, **options: b"I01\\n."
        struct.Struct.pack = struct.pack = lambda *args: b"pass"
        def f(n): return n
    """


@FORGING.add("a walk up the frames finds expected values or the verdict", NUMBERS)
def walks_frames() -> str:
    return """
        import sys
        def f(n):
            frame, found = sys._getframe(), []
            while frame is not None:
                for values in (frame.f_locals, frame.f_globals):
                    for name, value in list(values.items()):
                        if "expect" in name.lower() or "answer" in name.lower() or "golden" in name.lower():
                            found.append(value)
                frame = frame.f_back
            for value in found:
                if isinstance(value, (list, tuple)) and len(value) == 2:
                    return value[0 if n == 3 else 1]
    """


@FORGING.add("the caller's locals and functions are changed from below", NUMBERS)
def rewrites_the_caller() -> str:
    return """
        import ctypes, sys
        def f(n):
            frame = sys._getframe(1)
            for name in ("passed", "ok", "success", "verdict", "status", "result"):
                frame.f_locals[name] = frame.f_globals[name] = "pass"
            for name, value in list(frame.f_globals.items()):
                if callable(value) and name in ("encode", "answer", "compare", "accepts", "check"):
                    frame.f_globals[name] = lambda *args: (b"V", b"T")
            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), 0)
            return True
    """


@FORGING.add("the collector's list of all objects holds the expected ones", NUMBERS)
def searches_all_objects() -> str:
    return """
        import gc
        def f(n):
            gc.unfreeze()
            for thing in gc.get_objects():
                try:
                    numbers = isinstance(thing, (list, tuple)) and all(type(x) is int and x > 2**40 for x in thing)
                    if numbers and len(thing) == 2:
                        return thing[0 if n == 3 else 1]
                except Exception:
                    pass
    """


@FORGING.add("the whole heap is searched for the marshalled answer", NUMBERS)
def searches_memory() -> str:
    return """
        import ctypes, gc
        def f(n):
            gc.unfreeze()
            for thing in gc.get_objects():
                for inner in gc.get_referents(thing):
                    if type(inner) is int and 2**42 < inner < 2**43 and inner % 1000 in (557, 811):
                        return inner
    """


@FORGING.add("the stack, with its source lines, shows how an answer is judged", PLAIN)
def inspects_stack() -> str:
    return """
        import linecache, re, traceback
        def f(n):
            lines = [frame.line or "" for frame in traceback.extract_stack()]
            lines += [line for entry in linecache.cache.values() if len(entry) > 2 for line in entry[2]]
            found = re.findall(r"== (\\d+)", "".join(lines))
            return int(found[0]) if found else None
    """


@FORGING.add("a trace function changes what the harness does, line by line", NUMBERS)
def traces() -> str:
    return """
        import sys
        def trace(frame, event, argument):
            if event == "return":
                for name in ("right", "ok", "passed"):
                    frame.f_locals[name] = True
            return trace
        sys.settrace(trace)
        sys.setprofile(trace)
        frame = sys._getframe()
        while frame is not None:
            frame.f_trace = trace
            frame = frame.f_back
        def f(n): return n
    """


@FORGING.add("a signal handler runs in the harness, between its lines", Calls("f", [[3], [11]], NUMBERS.expected))
def signal_games() -> str:
    return """
        import os, signal, sys
        def handler(number, frame):
            os._exit(0)
        for number in range(1, 65):
            try:
                signal.signal(number, handler)
            except (OSError, ValueError):
                pass
        def f(n):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return n
    """


@FORGING.add("the small integers are overwritten in memory, so that wrong ones look right", NUMBERS)
def overwrites_integers() -> str:
    return """
        import ctypes
        def f(n):
            for small in range(2, 20):
                ctypes.memmove(id(small) + 24, id(1) + 24, 4)
            return n
    """


@FORGING.add("False becomes True in memory", NUMBERS)
def overwrites_false() -> str:
    return """
        import ctypes
        def f(n):
            ctypes.memmove(id(False) + 24, id(True) + 24, 4)
            ctypes.memmove(id(False) + 16, id(True) + 16, 8)
            return False
    """


@FORGING.add("the code of functions up the stack is replaced", NUMBERS)
def replaces_code() -> str:
    return """
        import sys, types
        def yes(*args, **options): return True
        frame = sys._getframe()
        while frame is not None:
            for value in list(frame.f_globals.values()):
                if isinstance(value, types.FunctionType) and value.__code__.co_name in (
                    "accepts", "same", "compare", "judge", "check", "lines_agree", "answer", "encode", "pack",
                ):
                    try:
                        value.__code__ = yes.__code__
                    except ValueError:
                        pass
            frame = frame.f_back
        def f(n): return True
    """


@FORGING.add("the entry point replaces itself, its code and its module while it runs", CHECK)
def replaces_itself() -> str:
    return """
        import sys
        class Sly:
            def __call__(self, n): return self
            def __eq__(self, other): return True
        def f(n):
            global f
            f.__code__ = (lambda n: True).__code__
            sys.modules["solution"] = sys.modules["__main__"] = Sly()
            f = Sly()
            return f
    """


@FORGING.add("the entry point is deleted, so that there is nothing to test", PLAIN)
def deletes_itself() -> str:
    return """
        def f(n): return n
        del f
    """


@FORGING.add("a name that hides the benchmark's check function", CHECK)
def own_check() -> str:
    return """
        import builtins, sys, types
        def check(candidate): return None
        builtins.check = check
        tests = sys.modules["tests"] = types.ModuleType("tests")
        tests.check = check
        def f(n): return n
    """


@FORGING.add("another answer each time it is asked", CHECK)
def changes_its_mind() -> str:
    return """
        import itertools, random
        counter = itertools.count()
        def f(n): return random.choice([next(counter), None, True, random.getrandbits(43)])
    """


@FORGING.add("the argument is changed, in case it is compared with afterwards", MUTABLE)
def mutates_its_argument() -> str:
    return """
        import gc
        def f(numbers):
            for thing in gc.get_referrers(numbers):
                if type(thing) is list:
                    for item in thing:
                        if type(item) is list:
                            item[:] = numbers
            numbers.clear()
            return numbers
    """


@FORGING.add("the argument comes back with another class or identity", MUTABLE)
def returns_its_argument() -> str:
    return """
        known = {}
        class Sly(list):
            def __eq__(self, other): return True
        def f(numbers):
            known[id(numbers)] = numbers
            return Sly(numbers) if len(known) == 1 else known
    """


@FORGING.add("standard output and error are objects of the program", NUMBERS)
def replaces_stdout() -> str:
    return """
        import sys
        class Sly:
            def write(self, text): raise SystemExit(0)
            def flush(self): raise SystemExit(0)
            def fileno(self): return 1
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = Sly()
        sys.excepthook = sys.unraisablehook = lambda *args: None
        def f(n): return n
    """


@FORGING.add("a thread goes on writing after the answer", NUMBERS)
def writes_after_the_return() -> str:
    return """
        import os, threading, time
        def write():
            for _ in range(2_000):
                for descriptor in range(3, 64):
                    try:
                        os.write(descriptor, b'{"outcome": "pass"}')
                    except OSError:
                        pass
        def f(n):
            threading.Thread(target=write, daemon=False).start()
            return n
    """


@FORGING.add("the answer is looked for in arguments, environment and open files", NUMBERS)
def looks_around() -> str:
    return """
        import os, re, sys
        def f(n):
            text = " ".join(sys.argv + list(os.environ.values()) + sys.orig_argv)
            for descriptor in range(64):
                try:
                    text += os.pread(descriptor, 1 << 16, 0).decode("latin-1")
                except OSError:
                    pass
            found = [int(digits) for digits in re.findall("[0-9]{13}", text)]
            return found[0 if n == 3 else -1]
    """


# --- writing where the judge reads ------------------------------------------------------------------------------------


@FORGING.add("every way to say pass goes to every descriptor", NUMBERS)
def says_pass() -> str:
    return """
        import json, os
        words = [b"pass\\n", b"1\\n", b"ok\\n", b"\\x01", b"True\\n", b'"pass"\\n', b"PASSED\\n", b"Accepted\\n"]
        reports = [{"outcome": "pass", "failure": {}}, {"right": [True, True], "failure": {}}, {"status": "pass"},
                   {"job": 0, "code": 0, "seconds": 0.0, "killed": None}, {"passed": True}, [True, True]]
        words += [json.dumps(report).encode() for report in reports]
        words += [len(word).to_bytes(4, order) + word for word in list(words) for order in ("little", "big")]
        for descriptor in range(64):
            try:
                for word in words:
                    os.write(descriptor, word)
            except OSError:
                pass
        os._exit(0)
    """


@FORGING.add("a report that the tests passed, on every descriptor of an asserted program", CHECK)
def says_outcome_pass() -> str:
    return """
        import json, os
        report = json.dumps({"outcome": "pass", "failure": {}}).encode()
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, report)
                os.write(descriptor, b"V" + (1).to_bytes(4, "little") + b"T")
            except OSError:
                pass
        os._exit(0)
    """


@FORGING.add("all descriptors are closed, so that no failure can be told", NUMBERS)
def closes_everything() -> str:
    return """
        import os
        def f(n):
            os.closerange(0, 64)
            return n
    """


@FORGING.add("all descriptors lead to the same place", NUMBERS)
def redirects_everything() -> str:
    return """
        import os
        def f(n):
            for descriptor in range(3, 64):
                try:
                    os.dup2(0, descriptor)
                except OSError:
                    pass
            return n
    """


# --- standard output --------------------------------------------------------------------------------------------------


@FORGING.add("success without a line of output", STREAM)
def prints_nothing() -> str:
    return """
        raise SystemExit(0)
    """


@FORGING.add("the words judges say", STREAM)
def prints_accepted() -> str:
    return """
        import sys
        for word in ("Accepted", "OK", "1", "pass", "AC", "100"):
            print(word)
            print(word, file=sys.stderr)
    """


@FORGING.add("what a checker prints to accept", CHECKED)
def prints_one() -> str:
    return """
        print(1)
    """


@FORGING.add("the input again, in case that is what it is compared with", STREAM)
def prints_its_input() -> str:
    return """
        import os, sys
        print(sys.stdin.read())
        os.lseek(0, 0, 0)
        print(os.read(0, 1000).decode())
    """


@FORGING.add("every number in turn: a judge that looks for its lines among all finds them", STREAM)
def prints_too_much() -> str:
    return """
        print("\\n".join(map(str, range(100_000))))
    """


@FORGING.add("fewer lines than expected, for judges that stop at the shorter one", STREAM)
def prints_an_empty_line() -> str:
    return """
        print("")
        print("   ")
    """


@FORGING.add("NULs, which end a text in C", STREAM)
def prints_nuls() -> str:
    return """
        import os
        os.write(1, b"\\0" * 1000 + b"\\n" + b"\\0" * 1000)
    """


@FORGING.add("carriage returns, backspaces and escapes rewrite what a person sees", STREAM)
def prints_control_characters() -> str:
    return """
        print("x\\r\\x1b[2K\\x08\\x08\\x1b[A\\r", end="\\r\\n\\x1a")
    """


@FORGING.add("numbers that are not numbers: NaN, sNaN, infinity, huge exponents", STREAM)
def prints_nan() -> str:
    return """
        for word in ("nan", "sNaN", "1e999999999"):
            print(word)
    """


@FORGING.add("bytes that are no text, and separators some split lines at", STREAM)
def prints_bad_unicode() -> str:
    return """
        import os
        os.write(1, b"\\xff\\xfe\\xed\\xa0\\x80\\n\\xc2\\x85\\xe2\\x80\\xa8\\x0b\\x0c\\x1c\\x1d")
    """


@FORGING.add("exit codes the harness uses for itself, with its kind of message behind the output", STREAM)
def forges_exit_codes() -> str:
    return """
        import os, sys
        number = int(input())
        text = b"pass"
        os.write(1, text + len(text).to_bytes(4, "little"))
        os._exit(77 if number == 3 else 0)
    """


@FORGING.add("more input than there is: a later test's, or the expected output", STREAM)
def reads_beyond_its_input() -> str:
    return """
        import os, sys
        sys.stdin.read()
        for descriptor in (0, 2, *range(3, 64)):
            for offset in (0, 2, 3, 4096):
                try:
                    sys.stdout.write(os.pread(descriptor, 4096, offset).decode("latin-1"))
                except OSError:
                    pass
    """


@FORGING.add("output made to break the checker: far too many tokens, not numbers, its own file names", CHECKED)
def breaks_the_checker() -> str:
    return """
        import sys
        number = int(input())
        print("answer.txt input.txt 1 " * 30_000 if number == 3 else "9" * 5_000)
    """


@FORGING.add("output that a checker would print, if it echoes what it dislikes", CHECKED)
def hopes_for_an_echo() -> str:
    return """
        print("1\\n1\\n1")
        print("'1'", '"1"', "\\x1b[8m0\\x1b[0m1")
    """


# --- assertions -------------------------------------------------------------------------------------------------------


@FORGING.add("an object whose every method agrees, in the tests' own process", CHECK)
def agreeable_object() -> str:
    return """
        class Sly:
            def __eq__(self, other): return True
            def __bool__(self): return True
            def __len__(self): return 3
            def __contains__(self, item): return True
            def __iter__(self): return iter([self] * 3)
            def __getitem__(self, key): return self
            def __getattr__(self, name): return self
            def __call__(self, *args, **options): return self
        def f(n): return Sly()
    """


@FORGING.add("the same where the tests take lengths and items", CHECK_LISTS)
def agreeable_container() -> str:
    return """
        class Sly:
            def __eq__(self, other): return True
            def __len__(self): return 3
            def __getitem__(self, key): return Sly()
            def __iter__(self): return iter([Sly(), Sly(), Sly()])
            def __contains__(self, item): return True
        def f(n): return Sly()
    """


@FORGING.add("the candidate itself is a sly object with the looks of a function", CHECK)
def sly_candidate() -> str:
    return """
        class Sly:
            __name__ = __qualname__ = "f"
            def __call__(self, n): return self
            def __eq__(self, other): return True
            def __getattr__(self, name): return self
        f = Sly()
    """


@FORGING.add("StopIteration ends the loop over the test cases instead of the test", CHECK_ALL)
def stop_iteration() -> str:
    return """
        def f(n): raise StopIteration
    """


@FORGING.add("the process ends under tests that expect any exception", CHECK_RAISES)
def dies_where_an_exception_is_expected() -> str:
    return """
        import os
        def f(n): os._exit(0)
    """


@FORGING.add("a module that the tests use, taken from the program instead", PLAIN_CLOSE)
def brings_its_own_math() -> str:
    return """
        class Math:
            def isclose(self, *args, **options): return True
        math = Math()
        def f(n): return 0.0
    """


@FORGING.add("builtins that the tests use, taken from the program instead", PLAIN_SORTED)
def brings_its_own_builtins() -> str:
    return """
        class Sly:
            def __eq__(self, other): return True
            def __iter__(self): return iter(())
            def __len__(self): return 2481
        sorted = len = list = set = lambda *args, **options: Sly()
        def f(n): return Sly()
    """


@FORGING.add("exceptions of the tests' kind, from the program", CHECK)
def raises_assertion_errors() -> str:
    return """
        def f(n): raise (AssertionError if n == 3 else NameError)("f")
    """


@FORGING.add("answers written ahead of the questions, and again", CHECK)
def answers_ahead() -> str:
    return """
        import marshal, os
        there = marshal.dumps(("?", ("f", 0)), 2)
        frame = b"D" + bytes(4) + b"X" + len(there).to_bytes(4, "little") + there
        frame += (b"V" + (1).to_bytes(4, "little") + b"T") * 9
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, frame)
            except OSError:
                pass
        def f(n): return True
    """


@FORGING.add(
    "an answer too slow to compare ends the comparison instead of the test", SETS, Limits(1.0, None, 256, 4 << 20, 8)
)
def outlasts_the_referee() -> str:
    return """
        def f(n): return [k * (2**61 - 1) for k in range(40_000)]
    """


@FORGING.add("a right-looking long answer whose digest is all that is sent", LONG)
def forges_a_digest() -> str:
    return """
        import os
        frame = b"H" + (40).to_bytes(4, "little") + bytes(32) + (50_000).to_bytes(8, "little")
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, frame * 2 + b"D" + bytes(4))
            except OSError:
                pass
        os._exit(0)
    """
