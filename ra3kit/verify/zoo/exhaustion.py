"""Programs that take more than they may. Should the walls fail, each stops by itself after bounded harm.

Loops end after 20 s, memory at 768 MiB, files at 64 MiB, processes at 8.
"""

from __future__ import annotations

from ra3kit.verify.problem import Asserts, Calls, Limits, Streams
from ra3kit.verify.zoo.attack import DONE, Collection

EXHAUSTION = Collection("exhaustion")

BRIEF = Limits(time=0.2, memory=256, output=1 << 20, threads=8)
"""The wall clock is at 2.6 s."""
SMALL = Limits(time=1.0, memory=64, output=1 << 20, threads=8)

NEVER = Calls("attack", [[]], ["never right"])
"""For programs that can only harm by what it costs to judge them."""
NEVER_CHECK = Asserts("def check(candidate):\n    assert candidate() == 'never right'\n", "attack")
NEVER_STREAM = Streams([""], ["never right\n"])


# --- time -------------------------------------------------------------------------------------------------------------


@EXHAUSTION.add("a busy loop outlives its CPU time", DONE, BRIEF)
def busy_loop() -> str:
    return """
        import time
        def attack():
            end = time.monotonic() + 20
            while time.monotonic() < end:
                pass
            return True
    """


@EXHAUSTION.add("a busy loop that catches everything thrown at it", DONE, BRIEF)
def busy_loop_that_catches() -> str:
    return """
        import time
        def attack():
            end = time.monotonic() + 20
            while time.monotonic() < end:
                try:
                    while time.monotonic() < end:
                        pass
                except BaseException:
                    pass
            return True
    """


@EXHAUSTION.add("one call into C during which no signal handler of Python runs", DONE, BRIEF)
def big_power() -> str:
    return """
        def attack():
            return bool(3 ** 60_000_000)
    """


@EXHAUSTION.add("a regular expression that backtracks for ages", DONE, BRIEF)
def backtracking() -> str:
    return """
        import re
        def attack():
            re.match("(a|aa)+$", "a" * 44 + "b")
            return True
    """


@EXHAUSTION.add("a long sleep uses no CPU time at all", DONE, BRIEF)
def sleeps() -> str:
    return """
        import time
        def attack():
            time.sleep(20)
            return True
    """


@EXHAUSTION.add("waiting for a lock, with every signal ignored or blocked", DONE, BRIEF)
def ignores_signals() -> str:
    return """
        import signal, threading
        def attack():
            for number in range(1, 65):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            lock = threading.Lock()
            lock.acquire()
            return not lock.acquire(timeout=20)
    """


@EXHAUSTION.add("SIGXCPU, SIGALRM and SIGPROF are ignored while it burns CPU time", DONE, BRIEF)
def ignores_clock_signals() -> str:
    return """
        import signal, time
        for name in ("SIGXCPU", "SIGALRM", "SIGPROF", "SIGVTALRM", "SIGTERM", "SIGINT", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_PROF, 0)
        def attack():
            end = time.monotonic() + 20
            while time.monotonic() < end:
                pass
            return True
    """


@EXHAUSTION.add("a stopped process never ends", DONE, BRIEF)
def stops_itself() -> str:
    return """
        import os, signal
        def attack():
            os.kill(os.getpid(), signal.SIGSTOP)
            return False
    """


@EXHAUSTION.add("a class body that never ends, before there is anything to call", DONE, BRIEF)
def loops_at_import() -> str:
    return """
        import time
        class Endless:
            end = time.monotonic() + 20
            while time.monotonic() < end:
                pass
        def attack(): return True
    """


@EXHAUSTION.add("time is spent where nobody looks: after the last answer, at exit", NEVER_STREAM, BRIEF)
def sleeps_at_exit() -> str:
    return """
        import atexit, threading, time
        atexit.register(time.sleep, 20)
        threading.Thread(target=time.sleep, args=(20,)).start()
    """


@EXHAUSTION.add("time is spent in finalisers", DONE, BRIEF)
def sleeps_in_finalisers() -> str:
    return """
        import gc, time
        class Endless:
            def __del__(self):
                end = time.monotonic() + 20
                while time.monotonic() < end:
                    pass
        def attack():
            Endless()
            loop = [Endless()]
            loop.append(loop)
            del loop
            gc.collect()
            return True
    """


@EXHAUSTION.add("time is spent by the encoder, on an answer whose parts never end", DONE, BRIEF)
def endless_answer() -> str:
    return """
        import collections, time
        class Endless(collections.deque):
            def __iter__(self):
                end = time.monotonic() + 20
                while time.monotonic() < end:
                    yield 1
        class Number(int):
            def __int__(self):
                time.sleep(20)
                return 1
            __index__ = __float__ = __str__ = __int__
        def attack():
            return [Endless([1]), Number(1)]
    """


@EXHAUSTION.add("tests that iterate over an answer without end", Asserts("assert list(attack()) == [1]\n"), BRIEF)
def endless_generator() -> str:
    return """
        import time
        def attack():
            end = time.monotonic() + 20
            while time.monotonic() < end:
                yield 1
    """


@EXHAUSTION.add("a program that answers its tests one byte at a time", NEVER_CHECK, BRIEF)
def drips() -> str:
    return """
        import os, time
        def attack():
            end = time.monotonic() + 20
            os.write(34, b"V" + (1 << 20).to_bytes(4, "little"))
            while time.monotonic() < end:
                time.sleep(0.01)
                os.write(34, b"N")
    """


@EXHAUSTION.add("a comparison, a hash and a repr of endless recursion", DONE, BRIEF)
def endless_recursion() -> str:
    return """
        class Endless:
            def __eq__(self, other): return other == self
            def __hash__(self): return hash(Endless())
            def __repr__(self): return repr([self])
        def attack():
            for attempt in (lambda: Endless() == Endless(), lambda: {Endless()}, lambda: repr(Endless())):
                try:
                    attempt()
                except RecursionError:
                    pass
            raise ValueError(Endless())
    """


@EXHAUSTION.add("the heaviest modules there are", NEVER, BRIEF)
def heavy_imports() -> str:
    return """
        import importlib, pkgutil, sys
        for module in sys.stdlib_module_names - {"antigravity", "this", "idlelib", "turtledemo"}:
            try:
                importlib.import_module(module)
            except BaseException:
                pass
        def attack(): return len(sys.modules)
    """


# --- memory -----------------------------------------------------------------------------------------------------------


@EXHAUSTION.add("one allocation far over the limit", DONE, SMALL)
def one_big_allocation() -> str:
    return """
        def attack():
            return len(b"x" * (768 << 20)) > 0
    """


@EXHAUSTION.add("a list that doubles", DONE, SMALL)
def doubles_a_list() -> str:
    return """
        def attack():
            things = [0] * 1024
            while len(things) < 90_000_000:
                things += things
            return True
    """


@EXHAUSTION.add("many small objects, with MemoryError caught and tried again", DONE, SMALL)
def catches_memory_errors() -> str:
    return """
        def attack():
            kept, size = [], 1 << 24
            while sum(map(len, kept)) < 768 << 20:
                try:
                    kept.append(bytearray(size))
                except MemoryError:
                    if size < 4096:
                        return False
                    size //= 2
            return True
    """


@EXHAUSTION.add("numpy asks the system itself", DONE, SMALL)
def numpy_memory() -> str:
    return """
        import numpy
        def attack():
            return bool(numpy.ones(768 << 17).sum() > 0)
    """


@EXHAUSTION.add("an anonymous mapping, shared, without reserve", DONE, SMALL)
def mapped_memory() -> str:
    return """
        import mmap
        def attack():
            area = mmap.mmap(-1, 768 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x4000)
            for offset in range(0, len(area), 4096):
                area[offset] = 1
            return True
    """


@EXHAUSTION.add("memory that belongs to a file in memory, not to the process", DONE, SMALL)
def memory_file() -> str:
    return """
        import os
        def attack():
            file = os.memfd_create("bomb")
            for _ in range(64):
                os.write(file, b"x" * (1 << 20))
            return True
    """


@EXHAUSTION.add("memory locked in place", DONE, SMALL)
def locked_memory() -> str:
    return """
        import ctypes
        def attack():
            libc = ctypes.CDLL(None)
            area = ctypes.create_string_buffer(16 << 20)
            return libc.mlock(area, len(area)) == 0 or libc.mlockall(3) == 0
    """


@EXHAUSTION.add("deep recursion overflows the stack", NEVER, SMALL)
def overflows_the_stack() -> str:
    return """
        import sys
        sys.setrecursionlimit(10**9)
        def attack(n=0): return attack(n + 1) + 1
    """


@EXHAUSTION.add("recursion through C overflows it where Python can't count", NEVER, SMALL)
def overflows_the_stack_in_c() -> str:
    return """
        import functools, sys
        sys.setrecursionlimit(10**9)
        def attack():
            f = len
            for _ in range(200_000):
                f = functools.partial(f)
                f = type("F", (), {"__call__": staticmethod(f)})() if _ % 50 == 0 else f
            value = None
            for _ in range(500_000):
                value = (value,)
            return hash(value) == hash(repr(value))
    """


@EXHAUSTION.add("a small text that unpacks to gigabytes", DONE, SMALL)
def zip_bomb() -> str:
    return """
        import zlib
        def attack():
            packer = zlib.compressobj(9)
            packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(768)) + packer.flush()
            return len(zlib.decompress(packed)) >= 768 << 20
    """


@EXHAUSTION.add("readers of nested data recurse: json, marshal, ast, re", NEVER, SMALL)
def nested_data() -> str:
    return """
        import ast, json, marshal, re
        def attack():
            attempts = [
                lambda: json.loads("[" * 10**6),
                lambda: marshal.loads(b"(\\x01\\0\\0\\0" * 10**5 + b"N"),
                lambda: ast.literal_eval("-" * 10**5 + "1"),
                lambda: re.compile("(" * 10**5 + ")" * 10**5),
                lambda: eval("[" * 99 + "]" * 99),
            ]
            for attempt in attempts:
                try:
                    attempt()
                except Exception:
                    pass
            return None
    """


@EXHAUSTION.add("an exception with a message of many megabytes", NEVER)
def huge_exception() -> str:
    return """
        def attack():
            raise ValueError("x" * (64 << 20))
    """


@EXHAUSTION.add("a chain and a group of exceptions without end", NEVER)
def exception_chain() -> str:
    return """
        def attack():
            error = ValueError("first")
            for number in range(100_000):
                later = ExceptionGroup("x" * 100, [error])
                later.__cause__ = error
                error = later
            raise error
    """


# --- compiling --------------------------------------------------------------------------------------------------------


@EXHAUSTION.add("the compiler folds a constant that has no end", DONE, BRIEF)
def constant_folding() -> str:
    return """
        def attack():
            return 9 ** 9 ** 8 > 0 and ("x" * 4096) * 4096 * 32 != ""
    """


@EXHAUSTION.add("parentheses nested too deeply for the parser", DONE, SMALL, compiles=False)
def nested_parentheses() -> str:
    return "def attack(): return True\nx = " + "(" * 50_000 + ")" * 50_000 + "\n"


@EXHAUSTION.add("operators nested too deeply for the compiler's own stack", DONE, SMALL, compiles=False)
def nested_operators() -> str:
    return "def attack(): return True\nx = " + "-~" * 150_000 + "1\n"


@EXHAUSTION.add("attributes and calls nested too deeply for the compiler's own stack", DONE, SMALL, compiles=False)
def nested_attributes() -> str:
    return "def attack(): return False\nx = a" + ".b()" * 200_000 + "\n"


@EXHAUSTION.add("blocks and comprehensions nested too deeply", DONE, SMALL, compiles=False)
def nested_blocks() -> str:
    lines = [" " * depth + "for x in [[y for y in z] for z in ()]:" for depth in range(99)]
    return "def attack(): return True\n" + "\n".join(lines) + "\n" + " " * 99 + "pass\n" + "lambda: " * 50_000 + "1\n"


@EXHAUSTION.add("a literal as large as programs may be", NEVER, SMALL, compiles=False)
def giant_literal() -> str:
    return "def attack(): return len(x)\nx = {" + ",".join(f"{n}:[{n}]" for n in range(150_000)) + "}\n"


@EXHAUSTION.add("an f-string whose format has no end", DONE, BRIEF)
def format_bomb() -> str:
    return """
        def attack():
            return len(f"{1:>700000000}") + len("%700000000d" % 1) > 0
    """


# --- processes and threads --------------------------------------------------------------------------------------------


@EXHAUSTION.add("fork: eight children, a bomb's first step", DONE)
def forks() -> str:
    return """
        import os
        def attack():
            for _ in range(8):
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                os.waitpid(pid, 0)
            return True
    """


@EXHAUSTION.add("fork and vfork by their system calls, past Python", DONE)
def forks_by_system_call() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            machine = os.uname().machine
            calls = {"x86_64": [(57,), (56, 17, 0, 0, 0, 0)], "aarch64": [(220, 17, 0, 0, 0, 0)]}[machine]
            for call in calls:
                pid = libc.syscall(*call)
                if pid == 0:
                    libc._exit(0)
                if pid > 0:
                    return True
            return False
    """


@EXHAUSTION.add("clone3, whose flags no filter can read", DONE)
def clones_by_clone3() -> str:
    return """
        import ctypes
        def attack():
            libc = ctypes.CDLL(None)
            arguments = (ctypes.c_uint64 * 11)()
            arguments[4] = 17
            pid = libc.syscall(435, arguments, ctypes.sizeof(arguments))
            if pid == 0:
                libc._exit(0)
            return pid > 0
    """


@EXHAUSTION.add("a thread's flags with a process's: memory shared, no thread", DONE)
def clones_halfway() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
            for flags in (0x11, 0x8011, 0x100 | 0x11, 0x100 | 0x4000 | 0x11, 0x10000000 | 0x11, 0x20000000 | 0x11):
                if flags & 0x100:
                    continue  # a child in the same memory would need a stack of its own
                pid = libc.syscall(number, flags, 0, 0, 0, 0)
                if pid == 0:
                    libc._exit(0)
                if pid > 0:
                    return True
            return False
    """


@EXHAUSTION.add("a process by way of the standard library's pools", DONE)
def multiprocessing_pool() -> str:
    return """
        import multiprocessing
        def attack():
            process = multiprocessing.get_context("fork").Process(target=int)
            process.start()
            process.join()
            return True
    """


@EXHAUSTION.add("two hundred threads", DONE)
def thread_bomb() -> str:
    return """
        import threading, time
        def attack():
            threading.stack_size(64 << 10)
            end = time.monotonic() + 2
            most = 0
            try:
                for _ in range(200):
                    threading.Thread(target=lambda: time.sleep(max(0, end - time.monotonic())), daemon=True).start()
                    most = max(most, threading.active_count())  # where starting is slow, the first may have ended
            except RuntimeError:
                pass
            time.sleep(1)  # where threads are watched, not counted by the kernel, they are seen when they stay
            return most > 64
    """


@EXHAUSTION.add("threads that start threads, faster than anyone counts", DONE)
def thread_chain() -> str:
    return """
        import _thread, time
        counts = {"started": 0, "alive": 0, "most": 0}
        def chain():
            counts["alive"] += 1
            counts["most"] = max(counts["most"], counts["alive"])
            try:
                if counts["started"] < 400:
                    counts["started"] += 1
                    _thread.start_new_thread(chain, ())
                    _thread.start_new_thread(chain, ())
                    time.sleep(1)
            except RuntimeError:
                pass
            finally:
                counts["alive"] -= 1
        def attack():
            chain()
            time.sleep(0.5)
            return counts["most"] > 64
    """


@EXHAUSTION.add("threads share the work of burning CPU time, so that each looks innocent", DONE, BRIEF)
def burns_in_threads() -> str:
    return """
        import hashlib, threading, time
        def burn(end):
            while time.monotonic() < end:
                hashlib.sha256(bytes(1 << 20))
        def attack():
            threading.stack_size(256 << 10)
            end = time.monotonic() + 20
            threads = [threading.Thread(target=burn, args=(end,)) for _ in range(6)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            return True
    """


# --- descriptors, pipes, files ----------------------------------------------------------------------------------------


@EXHAUSTION.add("thousands of open files", DONE)
def file_bomb() -> str:
    return """
        import os
        def attack():
            files = []
            try:
                for _ in range(4096):
                    files.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
            return len(files) > 1024
    """


@EXHAUSTION.add("kernel memory in full pipes", DONE)
def pipe_bomb() -> str:
    return """
        import os
        def attack():
            for _ in range(64):
                reading, writing = os.pipe()
                os.set_blocking(writing, False)
                os.write(writing, b"x" * (1 << 16))
            return True
    """


@EXHAUSTION.add("a file of 64 MiB in a folder for temporary files", DONE)
def fills_the_disk() -> str:
    return """
        import os
        def attack():
            for folder in ("/tmp", "/var/tmp", "/dev/shm", ".", "/run", os.path.expanduser("~"), CANARY.writable_dir):
                path = os.path.join(folder, "ra3kit-zoo-fill")
                try:
                    file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
                except OSError:
                    continue
                os.unlink(path)
                for _ in range(64):
                    os.write(file, b"x" * (1 << 20))
                return True
            return False
    """


@EXHAUSTION.add("a nameless temporary file, and one by the standard library", DONE)
def temporary_file() -> str:
    return """
        import os, tempfile
        def attack():
            try:
                os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
                return True
            except OSError:
                pass
            with tempfile.TemporaryFile() as file:
                file.write(bytes(1 << 20))
            return True
    """


@EXHAUSTION.add("sqlite writes a database by itself", DONE)
def sqlite_file() -> str:
    return """
        import sqlite3
        def attack():
            database = sqlite3.connect(CANARY.writable_dir + "/zoo.db")
            database.execute("create table bomb (data)")
            database.execute("insert into bomb values (zeroblob(1000000))")
            database.commit()
            return True
    """


@EXHAUSTION.add("a sparse file, grown without writing", DONE)
def sparse_file() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            path = (CANARY.writable_dir + "/bait").encode()
            return libc.truncate(path, ctypes.c_long(64 << 20)) == 0
    """


# --- output -----------------------------------------------------------------------------------------------------------


@EXHAUSTION.add("a huge answer fills the judge's memory", NEVER)
def huge_answer() -> str:
    return """
        def attack():
            return b"x" * (64 << 20)
    """


@EXHAUSTION.add("a huge answer to a test with assertions, where no pipe is watched", NEVER_CHECK)
def huge_answer_to_an_assertion() -> str:
    return """
        def attack():
            return b"x" * (64 << 20)
    """


@EXHAUSTION.add("standard output without end", NEVER_STREAM)
def floods_stdout() -> str:
    return """
        import os
        for _ in range(4096):
            os.write(1, b"x" * (1 << 16))
    """


@EXHAUSTION.add(
    "standard error without end: a pipe that nobody empties blocks whoever writes next", NEVER_STREAM, BRIEF
)
def floods_stderr() -> str:
    return """
        import fcntl, os
        fcntl.fcntl(2, fcntl.F_SETFL, os.O_WRONLY | os.O_NONBLOCK)
        try:
            for _ in range(4096):
                os.write(2, b"x" * (1 << 16))
        except BlockingIOError:
            print("never right")
    """


@EXHAUSTION.add("standard output stays open, and nothing comes", NEVER_STREAM, BRIEF)
def never_closes_stdout() -> str:
    return """
        import os, time
        os.dup2(1, 40)
        os.close(1)
        time.sleep(20)
    """


@EXHAUSTION.add(
    "millions of empty frames, each an object in the judge's memory", NEVER, Limits(1.0, None, 256, 16 << 20, 8)
)
def floods_frames() -> str:
    return """
        import os
        frames = (b"N" + bytes(4)) * 100_000
        for _ in range(30):
            for descriptor in (32, 34):
                try:
                    os.write(descriptor, frames)
                except OSError:
                    pass
        def attack(): return None
    """


@EXHAUSTION.add("a frame that announces four gigabytes", NEVER_CHECK, BRIEF)
def announces_gigabytes() -> str:
    return """
        import os
        for descriptor in (32, 34):
            try:
                os.write(descriptor, b"V" + b"\\xff" * 4 + b"x" * 1000)
            except OSError:
                pass
        def attack(): return None
    """


@EXHAUSTION.add("answers one byte at a time keep the judge busy", NEVER, BRIEF)
def dribbles() -> str:
    return """
        import os, time
        def attack():
            end = time.monotonic() + 20
            while time.monotonic() < end:
                os.write(32, b"V")
    """


@EXHAUSTION.add("an answer of hostile keys makes whoever builds its set or dict slow", NEVER_CHECK)
def colliding_keys() -> str:
    return """
        import os
        def frame(count):
            parts = []
            for k in range(1, count + 1):
                value, digits = k * (2**61 - 1), []
                while value:
                    digits.append(value & 0x7FFF)
                    value >>= 15
                shorts = b"".join(digit.to_bytes(2, "little") for digit in digits)
                parts.append(b"l" + len(digits).to_bytes(4, "little") + shorts)
            body = b"<" + count.to_bytes(4, "little") + b"".join(parts)
            return b"V" + len(body).to_bytes(4, "little") + body
        def attack():
            os.write(34, frame(60_000))
    """
