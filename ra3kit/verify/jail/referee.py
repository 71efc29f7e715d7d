"""Judging what programs answered, in a confined process of its own: the code is trusted, the answers are not."""

from __future__ import annotations

import ast
import base64
import builtins
import contextlib
import importlib
import io
import json
import linecache
import sys
import traceback
import types
from typing import Any

from . import compare, frames, program, wire

Report = dict[str, Any]


def referee_compare(payload: bytes) -> Report:
    """Compare answers with what was expected.

    Args:
        payload: kind and payload of (atol, oracle, exact, items), each item (arguments, expected, kind, answer bytes).

    Returns:
        "right": a bool for each item; "failure": the first wrong one for a person.
    """
    atol, oracle, exact, items = wire.own(payload[:1], payload[1:])
    right: list[bool] = []
    failure: Report = {}
    for arguments, expected, kind, answer in items:
        got: Any = None
        error = ""
        try:
            got = wire.decode(kind, answer)
            right.append(bool(compare.accepts(got, expected, arguments, atol, oracle, exact)))
        # an answer of the wrong kind makes a comparison or an oracle raise: it is wrong (evalplus's rule too)
        except Exception as problem:
            right.append(False)
            error = f"{type(problem).__name__}: {problem}"[:300]
        if not right[-1] and not failure:
            failure = {"got": compare.short(got), "expected": compare.short(expected)}
            if error:
                failure["error"] = f"could not be compared: {error}"
    return {"right": right, "failure": failure}


def referee_lines(payload: bytes) -> Report:
    """Compare standard output with what was expected: (got bytes, expected text)."""
    got, expected = wire.own(payload[:1], payload[1:])
    return {"right": [compare.lines_agree(got.decode("utf-8", "replace"), expected)], "failure": {}}


def referee_checker(payload: bytes) -> Report:
    """Run a problem's checker on (source, input, expected, got bytes): right when it prints 1."""
    source, given, expected, got = wire.own(payload[:1], payload[1:])
    files = {"input.txt": given.encode(), "answer.txt": expected.encode(), "output.txt": got}
    printed = io.StringIO()
    sys.argv = ["checker.py", "input.txt", "answer.txt", "output.txt"]
    # a checker opens three files; there are none here, so these names lead to memory
    builtins.open = io.open = _opener(files)
    error = ""
    with contextlib.redirect_stdout(printed):
        try:
            program.load(source.encode(), "__main__")
        except SystemExit:
            pass
        except Exception as problem:  # most checkers trip over malformed output; that is a wrong answer
            error = f"the checker raised {type(problem).__name__}: {problem}"[:300]
    verdict = printed.getvalue().strip()
    failure = {"error": error or f"the checker printed {verdict[:200]!r}"}
    right = not error and verdict in ("1", "1.0")
    return {"right": [right], "failure": {} if right else failure}


def _opener(files: dict[str, bytes]) -> Any:
    def open_memory(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        data = files.get(str(file))
        if data is None or "r" not in mode or "+" in mode:
            raise FileNotFoundError(f"{file!r}: a checker has only {', '.join(files)}")
        raw = io.BytesIO(data)
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding="utf-8", errors="replace")

    return open_memory


class ProgramGone(BaseException):
    """The program's process ended, didn't load, or talks nonsense. BaseException: no test may take it for an answer."""

    def __init__(self, how: str, message: str = ""):
        super().__init__(message)
        self.how = how


class RemoteError(Exception):
    """An exception of the program that isn't one of Python's own."""


class Remote:
    """Stands in the tests for an object in the program's process.

    Everything it gives back is plain data. It compares by identity and does no arithmetic: an answer that should have
    been a value can't be a sly object here.
    """

    __slots__ = ("_link", "_number")

    def __init__(self, link: Link, number: int):
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._link.ask("call", self, None, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.ask("set", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._link.ask("item", self, key)

    def __iter__(self) -> Any:
        return iter(self._link.ask("list", self))

    def __len__(self) -> int:
        return int(self._link.ask("len", self))

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return "<an object of the program>"


class Link:
    """The tests' end of the channel to a program's process.

    Args:
        channel: a socket.
        record: keep what is called and answered.
    """

    def __init__(self, channel: int, record: bool = False):
        self.channel = channel
        self.last: Report = {}
        self.record: list[tuple[bytes, ...]] | None = [] if record else None
        self.names: list[str] = []
        self.remotes: dict[int, Remote] = {}
        self.lost: ProgramGone | Deviates | None = None
        self._receive()  # loaded

    def ask(self, what: str, target: Any, name: Any = None, arguments: Any = (), keywords: Any = None) -> Any:
        """What the program answers. Once it is lost it stays so, even if the tests catch everything."""
        if self.lost is None:
            try:
                return self._ask(what, target, name, arguments, keywords)
            except (ProgramGone, Deviates) as lost:
                self.lost = lost
        raise self.lost

    def _ask(self, what: str, target: Any, name: Any, arguments: Any, keywords: Any) -> Any:
        request = (what, target, name, arguments, keywords or {})
        frames.write(self.channel, frames.pack(*wire.encode(request, self._number)))
        if what == "call":
            self.last = {"input": compare.short(arguments)}
        frame = self._receive()
        if self.record is not None:
            self._note(what, name, arguments, keywords, frame)
        answer = self._understand(frame)
        if what == "call":
            self.last["got"] = compare.short(answer)
        return answer

    def _note(self, what: str, name: Any, arguments: Any, keywords: Any, frame: frames.Frame) -> None:
        """Record a call of the one function there is with plain data; anything else can't be repeated from a record."""
        assert self.record is not None
        if what == "name":
            self.names.append(name)
            return
        try:
            sent = wire.encode(list(arguments), _refuse)
        except TestsError:
            sent = (b"", b"")
        if (
            what != "call"
            or keywords
            or not sent[0]
            or len(self.names) != 1
            or frame.kind not in (wire.PLAIN, wire.TREE)
        ):
            self.record = None
        else:
            self.record.append((*sent, *frame))

    def _number(self, value: Any) -> int:
        if type(value) is not Remote:
            raise TestsError(f"the tests pass a {type(value).__qualname__}, which can't go to another process")
        return int(object.__getattribute__(value, "_number"))

    def _receive(self) -> frames.Frame:
        try:
            frame = frames.read_frame(self.channel)
        except OSError as error:
            raise ProgramGone("gone") from error
        if frame is None:
            raise ProgramGone("gone")
        if frame.kind in (frames.MEMORY, frames.LOAD_ERROR):
            how = "memory" if frame.kind == frames.MEMORY else "load"
            raise ProgramGone(how, frame.payload.decode("utf-8", "replace"))
        return frame

    def _understand(self, frame: frames.Frame) -> Any:
        if frame.kind in (wire.PLAIN, wire.TREE):
            try:
                return wire.decode(*frame, self._remote)
            except wire.WireError as error:
                raise ProgramGone("nonsense", str(error)) from error
        if frame.kind == frames.ERROR:
            message = frame.payload.decode("utf-8", "replace")
            self.last["error"] = message
            raise _local_error(message)
        if frame.kind in (frames.MEMORY, frames.CALL_TIME):
            raise ProgramGone("memory" if frame.kind == frames.MEMORY else "time")
        raise ProgramGone("nonsense", f"frame {frame.kind!r}")

    def _remote(self, value: wire.Opaque) -> Remote:
        """The same object every time, so that `is` and `==` hold between what the program gave and got back."""
        return self.remotes.setdefault(value.number, Remote(self, value.number))


def _refuse(value: Any) -> int:
    raise TestsError("not plain data")


class Deviates(BaseException):
    """The tests call otherwise than was recorded."""


class Replay(Link):
    """A program that has already answered the recorded calls.

    Args:
        inputs: kind and payload of the arguments of each recorded call.
        answers: frames of the program, fewer where it came to an end.
    """

    def __init__(self, inputs: list[tuple[bytes, bytes]], answers: list[frames.Frame]):
        self.inputs = inputs
        self.answers = answers
        self.last = {}
        self.record = None
        self.lost = None
        self.at = 0

    def _ask(self, what: str, target: Any, name: Any, arguments: Any, keywords: Any) -> Any:
        if what == "name":
            return Remote(self, 0)
        if what != "call" or keywords or self.at >= len(self.inputs):
            raise Deviates
        if wire.encode(list(arguments), _refuse) != self.inputs[self.at]:
            raise Deviates
        self.last = {"input": compare.short(arguments)}
        if self.at >= len(self.answers):
            raise ProgramGone("gone")
        frame, self.at = self.answers[self.at], self.at + 1
        if frame.kind == frames.DIGEST:
            raise Deviates  # a long answer, to be asked again
        answer = self._understand(frame)
        self.last["got"] = compare.short(answer)
        return answer

    def _remote(self, value: wire.Opaque) -> Remote:
        raise Deviates  # an object that stayed behind: to be asked again


def _local_error(message: str) -> Exception:
    """Tests may expect an exception: Python's own are raised by their name, others as RemoteError.

    So are those that would silently end a loop over the test cases.
    """
    name, _, text = message.partition(": ")
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and kind not in _NOT_RAISED:
        return kind(text)
    return RemoteError(message)


_NOT_RAISED = (StopIteration, StopAsyncIteration, UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)


class TestsError(Exception):
    """The tests themselves can't be run."""


def referee_asserts(payload: bytes, channel: int | None) -> Report:
    """Run test code against a program that is served on `channel`, or on its recorded answers.

    Args:
        payload: (code, entry_point or None, setup, record, inputs, answers); the last two for a replay.

    Returns:
        "outcome": "pass", "fail", "broken" (the tests can't be run), "deviates" (from the record), or how the
        program was lost; "failure"; "record" if one was asked for and could be made.
    """
    code, entry_point, setup, record, inputs, answers = wire.own(payload[:1], payload[1:])
    module = types.ModuleType("tests")
    sys.modules["tests"] = module
    namespace = module.__dict__
    if entry_point is None:  # what they set up may be made of the program's classes
        code, setup = f"{setup}\n{code}", ""
    linecache.cache["<tests>"] = (len(code), None, code.splitlines(True), "<tests>")
    link: Link | None = None
    try:
        tree = _ready(code, setup, namespace)
        if channel is None:
            link = Replay(inputs, [frames.Frame(*answer) for answer in answers])
        else:
            link = Link(channel, record)
        _run_tests(tree, entry_point, namespace, link)
        if link.lost is not None:  # under a test that caught it
            raise link.lost
        return {"outcome": "pass", "failure": {}, "record": _text(link)}
    except Deviates:
        return {"outcome": "deviates", "failure": {}}
    except TestsError as error:
        return {"outcome": "broken", "failure": {"error": str(error)[:500]}}
    except ProgramGone as error:
        return {"outcome": error.how, "failure": {"error": str(error)[:500], **(link.last if link else {})}}
    except BaseException as error:  # AssertionError, and whatever a wrong answer makes tests raise
        return {"outcome": "fail", "failure": _explain(error, link.last if link else {})}


def _ready(code: str, setup: str, namespace: dict[str, Any]) -> ast.Module:
    try:
        exec(compile(setup, "<setup>", "exec"), namespace)
        return ast.parse(code, "<tests>")
    except Exception as error:
        raise TestsError(f"{type(error).__name__}: {error}") from error


def _run_tests(tree: ast.Module, entry_point: str | None, namespace: dict[str, Any], link: Link) -> None:
    if entry_point is not None:
        candidate = link.ask("name", None, entry_point)
        if entry_point.isidentifier():
            namespace[entry_point] = candidate
        exec(compile(tree, "<tests>", "exec"), namespace)
        if not callable(namespace.get("check")):
            raise TestsError("they define no check(candidate)")
        namespace["check"](candidate)
        return
    for name in sorted(modules_used(tree) & free_names(tree) - namespace.keys()):
        namespace[name] = importlib.import_module(MODULES.get(name, name))
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise TestsError("they assert nothing")
    names = free_names(tree) - namespace.keys()
    for name in sorted(names):
        with contextlib.suppress(NameError):  # then the tests raise it, where they use it
            namespace[name] = link.ask("name", None, name)
    for name in () if names else sorted(tested_builtins(tree)):
        with contextlib.suppress(KeyError):
            namespace[name] = link.ask("own", None, name)
    exec(compile(tree, "<tests>", "exec"), namespace)


def _text(link: Link) -> str | None:
    if not link.record or len(link.names) != 1:
        return None
    return base64.b64encode(wire.encode([link.names[0], link.record])[1]).decode()


def free_names(tree: ast.Module) -> set[str]:
    """Names the tests use but don't make: those of the program."""
    used: set[str] = set()
    made: set[str] = set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            made.add(node.name)
    return used - made


MODULES = {"np": "numpy", "numpy": "numpy"}


def modules_used(tree: ast.Module) -> set[str]:
    """Standard modules (and numpy) whose members the tests use without importing them: theirs, not the program's."""
    bases: set[str] = set()
    others: set[str] = set()
    members = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (bases if id(node) in members else others).add(node.id)
    only_as_base = bases - others
    return only_as_base & (sys.stdlib_module_names | MODULES.keys())


def tested_builtins(tree: ast.Module) -> set[str]:
    """Builtins called in every assertion: what is tested is a function named like one, as MBPP's `sum`.

    Only asked for when the tests name nothing else of the program, or it could replace `set` or `len` under them.
    """
    asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    called = [
        {node.func.id for node in ast.walk(each) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        for each in asserts
    ]
    return set.intersection(*called) & set(dir(builtins)) if called else set()


def _explain(error: BaseException, last: Report) -> Report:
    failure = dict(last)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<tests>"]
    if lines and lines[-1]:
        failure["test"] = lines[-1][:500]
        if (expected := _expected(lines[-1])) is not None:
            failure["expected"] = expected
    if not isinstance(error, AssertionError) or str(error):
        failure["error"] = f"{type(error).__name__}: {error}"[:500]
    return failure


def _expected(line: str) -> str | None:
    """The right-hand side of `assert call(...) == value`."""
    try:
        (statement,) = ast.parse(line.strip()).body
    except (SyntaxError, ValueError):  # an assertion of several lines
        return None
    if isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Compare):
        return ast.unparse(statement.test.comparators[0])[:500]
    return None


def report(result: int, value: Report) -> None:
    """To the judge's process, which trusts this one."""
    frames.write(result, json.dumps(value).encode())
