"""Programs that reach for what lies outside. They touch the canaries and nothing else: signals but for the canary's are
number 0, system-wide settings would be set to what they are."""

from __future__ import annotations

from ra3kit.verify.problem import Calls, Limits
from ra3kit.verify.zoo.attack import DONE, Canary, Collection, learned, learned_earlier

ESCAPE = Collection("escape")

SEARCH = Limits(time=1.0, memory=512, output=1 << 20, threads=8)
REFERENCE_ANSWER = "an answer that stands in the kit's own files: 7c41e9d05b"
"""Nothing but a file of the installed kit holds it."""


def _reference(canary: Canary) -> Calls:
    return Calls("attack", [[]], [REFERENCE_ANSWER])


# --- reading files ----------------------------------------------------------------------------------------------------


@ESCAPE.add("a file is read the plain way", learned)
def reads_a_file() -> str:
    return """
        def attack():
            return open(CANARY.secret_file).read()
    """


@ESCAPE.add("a file is read with the system's calls", learned)
def reads_with_os_open() -> str:
    return """
        import os
        def attack():
            for flags in (os.O_RDONLY, os.O_RDONLY | os.O_NOFOLLOW, os.O_RDONLY | os.O_NONBLOCK, os.O_RDWR):
                try:
                    return os.read(os.open(CANARY.secret_file, flags), 4096).decode()
                except OSError:
                    pass
    """


@ESCAPE.add("a file is read by the opener for code, and by the loaders of modules", learned)
def reads_with_loaders() -> str:
    return """
        import importlib.machinery, io, linecache, tokenize, zipimport
        def attack():
            path = CANARY.secret_file
            attempts = [
                lambda: io.open_code(path).read().decode(),
                lambda: importlib.machinery.SourceFileLoader("m", path).get_data(path).decode(),
                lambda: tokenize.open(path).read(),
                lambda: linecache.getline(path, 1) or None,
                lambda: zipimport.zipimporter(path),
            ]
            for attempt in attempts:
                try:
                    if found := attempt():
                        return found
                except Exception:
                    pass
    """


@ESCAPE.add("libc opens a file behind Python's back", learned)
def reads_with_libc() -> str:
    return """
        import ctypes
        def attack():
            libc = ctypes.CDLL(None)
            libc.fopen.restype = ctypes.c_void_p
            text = ctypes.create_string_buffer(4096)
            file = libc.open(CANARY.secret_file.encode(), 0)
            if file >= 0:
                libc.read(file, text, 4096)
                return text.value.decode()
            stream = libc.fopen(CANARY.secret_file.encode(), b"r")
            if stream:
                libc.fread(text, 1, 4096, ctypes.c_void_p(stream))
                return text.value.decode()
    """


@ESCAPE.add("openat2 and other new ways to open, by number", learned)
def reads_with_openat2() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            how = (ctypes.c_uint64 * 3)()
            file = libc.syscall(437, -100, CANARY.secret_file.encode(), how, 24)
            return os.read(file, 4096).decode()
    """


@ESCAPE.add("a file by its handle, past every folder above it", learned)
def reads_by_handle() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None, use_errno=True)
            handle = (ctypes.c_uint32 * 34)(128)
            mount = ctypes.c_int()
            name, opened = {"x86_64": (303, 304), "aarch64": (264, 265)}[os.uname().machine]
            if libc.syscall(name, -100, CANARY.secret_file.encode(), handle, ctypes.byref(mount), 0) != 0:
                return None
            return os.read(libc.syscall(opened, os.open("/usr/lib", os.O_RDONLY), handle, 0), 4096).decode()
    """


@ESCAPE.add("a path-only descriptor is opened again through it", learned)
def reopens_a_path_descriptor() -> str:
    return """
        import os
        def attack():
            handle = os.open(CANARY.secret_file, os.O_PATH)
            for path in (f"/proc/self/fd/{handle}", f"/dev/fd/{handle}"):
                try:
                    return open(path).read()
                except OSError:
                    pass
            folder = os.open(os.path.dirname(CANARY.secret_file), os.O_PATH)
            file = os.open(os.path.basename(CANARY.secret_file), os.O_RDONLY, dir_fd=folder)
            return os.read(file, 4096).decode()
    """


@ESCAPE.add("detours to a file: dots, double slashes, the roots of processes", learned)
def reads_by_detours() -> str:
    return """
        import os
        def attack():
            path = CANARY.secret_file
            roots = ["/usr/lib/../..", "/usr/lib/../../.", "//", "/proc/self/root", "/proc/1/root", "/proc/self/cwd",
                    f"/proc/{os.getppid()}/root", f"/proc/{CANARY.pid}/root", "/dev/../", "/proc/thread-self/root"]
            for root in roots:
                try:
                    return open(root + path).read()
                except OSError:
                    pass
    """


@ESCAPE.add("a link to a file from a place that may be read", learned)
def links_to_a_file() -> str:
    return """
        import os, sys
        def attack():
            for folder in (os.path.dirname(os.__file__), "/usr/lib", "/tmp", "/dev/shm", CANARY.writable_dir):
                for make in (os.symlink, os.link):
                    place = os.path.join(folder, "ra3kit-zoo-link")
                    try:
                        make(CANARY.secret_file, place)
                    except OSError:
                        continue
                    try:
                        return open(place).read()
                    except OSError:
                        pass
                    finally:
                        os.unlink(place)
    """


@ESCAPE.add("sqlite, dbm and mmap open files by themselves", learned)
def reads_with_libraries() -> str:
    return """
        import configparser, csv, fileinput, mmap, os, shutil, sqlite3
        def attack():
            path = CANARY.secret_file
            attempts = [
                lambda: sqlite3.connect(":memory:").execute("attach ? as other", (path,)).fetchall(),
                lambda: sqlite3.connect(":memory:").execute("select readfile(?)", (path,)).fetchone()[0],
                lambda: "".join(fileinput.input(path)),
                lambda: mmap.mmap(os.open(path, 0), 0, prot=mmap.PROT_READ)[:].decode(),
                lambda: open(shutil.copy(path, "/tmp/ra3kit-zoo-copy")).read(),
            ]
            for attempt in attempts:
                try:
                    if found := attempt():
                        return found
                except Exception:
                    pass
    """


@ESCAPE.add("the dynamic linker and locale functions open files for a program", learned)
def reads_with_the_linker() -> str:
    return """
        import ctypes, gettext, locale
        def attack():
            path = CANARY.secret_file
            for attempt in (lambda: ctypes.CDLL(path), lambda: gettext.GNUTranslations(open(path, "rb"))):
                try:
                    attempt()
                except Exception as error:
                    if "invalid ELF" in str(error) or "file too short" in str(error):
                        return open(path).read()
    """


@ESCAPE.add(
    "the size of a file nobody may read tells that it exists",
    lambda canary: Calls("attack", [[]], [len(canary.secret)]),
    needs="namespaces",
)
def measures_a_file() -> str:
    return """
        import os
        def attack():
            return os.stat(CANARY.secret_file).st_size
    """


@ESCAPE.add("a folder's names", DONE)
def lists_a_folder() -> str:
    return """
        import os
        def attack():
            for attempt in (lambda: os.listdir(CANARY.writable_dir), lambda: "passwd" in os.listdir("/etc"),
                    lambda: os.listdir("/proc"),
                    lambda: [entry.name for entry in os.scandir(CANARY.writable_dir)]):
                try:
                    if attempt():
                        return True
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("the machine's secrets and settings", DONE)
def reads_system_files() -> str:
    return """
        def attack():
            for path in ("/etc/passwd", "/etc/shadow", "/proc/cmdline", "/proc/self/environ", "/proc/self/maps",
                    "/proc/1/environ",
                    "/proc/kcore", "/proc/kallsyms", "/sys/kernel/notes", "/dev/mem", "/dev/kmsg", "/dev/sda",
                    "/dev/tty",
                    "/run/systemd/system", "/etc/resolv.conf", "/etc/hosts"):
                try:
                    if open(path, "rb").read(1):
                        return True
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("reference answers in the installed kit's own files", _reference)
def reads_the_kit() -> str:
    import ra3kit

    return f"""
        import os, re, sys
        def attack():
            folders = [{str(ra3kit.__path__[0])!r}, *(os.path.join(path, "ra3kit") for path in sys.path)]
            for folder in folders:
                try:
                    text = open(os.path.join(folder, "verify/zoo/escape.py")).read()
                except OSError:
                    continue
                return re.search('REFERENCE_ANSWER = "(.*)"', text).group(1)
            from ra3kit.verify.zoo import escape
            return escape.REFERENCE_ANSWER
    """


# --- changing files ---------------------------------------------------------------------------------------------------


@ESCAPE.add("a file is made, or one is changed", DONE)
def writes_a_file() -> str:
    return """
        import os
        def attack():
            for path in (CANARY.writable_dir + "/new", CANARY.writable_dir + "/bait", "/tmp/ra3kit-zoo",
                    "/var/tmp/ra3kit-zoo",
                    "/dev/shm/ra3kit-zoo", "ra3kit-zoo", os.path.dirname(os.__file__) + "/ra3kit_zoo.py"):
                for flags in (os.O_CREAT | os.O_WRONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_TRUNC):
                    try:
                        file = os.open(path, flags)
                        os.write(file, b"x")
                        return True
                    except OSError:
                        pass
            return False
    """


@ESCAPE.add("a file is cut without being opened for writing", DONE)
def truncates_on_open() -> str:
    return """
        import os
        def attack():
            os.open(CANARY.writable_dir + "/bait", os.O_RDONLY | os.O_TRUNC)
            return True
    """


@ESCAPE.add("folders, pipes, sockets and devices are made", DONE)
def makes_nodes() -> str:
    return """
        import os, stat
        def attack():
            place = CANARY.writable_dir + "/node"
            for make in (lambda: os.mkdir(place), lambda: os.mkfifo(place),
                    lambda: os.mknod(place, 0o600 | stat.S_IFREG),
                    lambda: os.symlink("x", place), lambda: os.mkdir("/tmp/ra3kit-zoo-node")):
                try:
                    make()
                    return True
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("a file is renamed, linked or deleted", DONE)
def renames_and_deletes() -> str:
    return """
        import os
        def attack():
            bait = CANARY.writable_dir + "/bait"
            for change in (lambda: os.rename(bait, bait + "2"), lambda: os.link(bait, bait + "3"),
                    lambda: os.unlink(bait)):
                try:
                    change()
                    return True
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("mode, owner, times and attributes of a file are changed", DONE)
def changes_metadata() -> str:
    return """
        import os
        def attack():
            bait = CANARY.writable_dir + "/bait"
            for change in (lambda: os.chmod(bait, 0o777), lambda: os.chown(bait, os.getuid(), os.getgid()),
                    lambda: os.utime(bait),
                    lambda: os.setxattr(bait, "user.zoo", b"x"), lambda: os.chmod(CANARY.writable_dir, 0o777)):
                try:
                    change()
                    return True
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("a library that programs import is changed for those that come later", DONE)
def poisons_a_library() -> str:
    return """
        import os, py_compile, importlib.util
        def attack():
            for module in ("json", "this", "numpy"):
                spec = importlib.util.find_spec(module)
                for path in (spec.origin, importlib.util.cache_from_source(spec.origin)):
                    try:
                        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
                        return True
                    except OSError:
                        pass
            return False
    """


@ESCAPE.add("the current folder and the root are changed", DONE)
def changes_root() -> str:
    return """
        import os
        def attack():
            for change in (lambda: os.chroot("/usr/lib"), lambda: os.chdir("/usr/lib"),
                    lambda: os.fchdir(os.open("/usr/lib", os.O_PATH))):
                try:
                    change()
                    return True
                except OSError:
                    pass
            return False
    """


# --- network ----------------------------------------------------------------------------------------------------------


@ESCAPE.add("a TCP connection to the machine itself", DONE)
def connects_by_tcp() -> str:
    return """
        import socket
        def attack():
            socket.create_connection(("127.0.0.1", CANARY.tcp_port), 1).close()
            return True
    """


@ESCAPE.add("a UDP packet, and a name looked up", DONE)
def sends_by_udp() -> str:
    return """
        import socket
        def attack():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                return sender.sendto(b"zoo", ("127.0.0.1", CANARY.tcp_port)) == 3
    """


@ESCAPE.add("a Unix socket without a place in the file system", DONE)
def connects_by_abstract_socket() -> str:
    return """
        import socket
        def attack():
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(b"\\0" + CANARY.abstract_socket.encode())
            return True
    """


@ESCAPE.add("raw, packet, netlink, alg, vsock and bluetooth sockets", DONE)
def opens_other_sockets() -> str:
    return """
        import socket
        def attack():
            kinds = (2, 3, 1), (17, 3, 768), (16, 3, 0), (38, 5, 0), (40, 1, 0), (31, 3, 1), (1, 1, 0), (10, 1, 0)
            for family, kind, protocol in kinds:
                try:
                    socket.socket(family, kind, protocol)
                    return True
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("a pair of sockets, by which descriptors could travel", DONE)
def makes_a_socket_pair() -> str:
    return """
        import socket
        def attack():
            socket.socketpair()
            return True
    """


@ESCAPE.add("descriptors are sent along the channels that are open already", DONE)
def sends_descriptors() -> str:
    return """
        import array, ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            number = {"x86_64": 46, "aarch64": 211}[os.uname().machine]
            for descriptor in range(3, 64):
                message = (ctypes.c_uint64 * 7)()
                if libc.syscall(number, descriptor, message, 0) >= 0:
                    return True
            return False
    """


@ESCAPE.add("io_uring makes calls that a filter of calls doesn't see", DONE)
def sets_up_io_uring() -> str:
    return """
        import ctypes
        def attack():
            libc = ctypes.CDLL(None)
            return libc.syscall(425, 4, (ctypes.c_uint32 * 30)()) >= 0
    """


# --- other processes --------------------------------------------------------------------------------------------------


@ESCAPE.add("a signal ends a process outside", DONE)
def kills_a_process() -> str:
    return """
        import os, signal
        def attack():
            os.kill(CANARY.pid, signal.SIGKILL)
            return True
    """


@ESCAPE.add("signals by other calls: thread, queue, handle", DONE)
def kills_by_other_calls() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            tkill, tgkill, queue, pidfd_open, pidfd_send = {
                "x86_64": (200, 234, 129, 434, 424), "aarch64": (130, 131, 138, 434, 424),
            }[os.uname().machine]
            pid = CANARY.pid
            results = [libc.syscall(tkill, pid, 15), libc.syscall(tgkill, pid, pid, 15),
                    libc.syscall(queue, pid, 15, (ctypes.c_uint32 * 32)(15, 0, 0xFFFFFFFF))]
            handle = libc.syscall(pidfd_open, pid, 0)
            if handle >= 0:
                results.append(libc.syscall(pidfd_send, handle, 15, None, 0))
            return 0 in results
    """


@ESCAPE.add("signal 0 reaches its parent, everyone, or another group", DONE)
def signals_the_parent() -> str:
    return """
        import os
        def attack():
            for pid in (os.getppid() or -1, 1, -1, -os.getppid() or -1, -CANARY.pid):
                if pid == os.getpid():
                    continue
                try:
                    os.kill(pid, 0)
                    return True
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("the high half of a process id, which a filter may not look at", DONE)
def signals_with_a_wide_pid() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            number = {"x86_64": 62, "aarch64": 129}[os.uname().machine]
            for pid in (CANARY.pid | 1 << 32, CANARY.pid, -1):
                if libc.syscall(number, ctypes.c_long(pid), 0) == 0:
                    return True
            return False
    """


@ESCAPE.add("another process is traced, stopped and read", DONE)
def traces_a_process() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            libc.ptrace.restype = ctypes.c_long
            for pid in (CANARY.pid, os.getppid(), 1):
                for request in (16, 0x4206):
                    if libc.ptrace(request, pid, None, None) == 0:
                        libc.ptrace(17, pid, None, None)
                        return True
            return libc.ptrace(0, 0, None, None) == 0
    """


@ESCAPE.add("memory of another process is read and written", DONE)
def reads_foreign_memory() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            read, write = {"x86_64": (310, 311), "aarch64": (270, 271)}[os.uname().machine]
            here = ctypes.create_string_buffer(16)
            local = (ctypes.c_uint64 * 2)(ctypes.addressof(here), 16)
            remote = (ctypes.c_uint64 * 2)(id(None), 16)
            for pid in (CANARY.pid, os.getppid(), 1):
                if pid != os.getpid() and libc.syscall(read, pid, local, 1, remote, 1, 0) == 16:
                    return True
            for pid in (os.getppid(), CANARY.pid, "self"):
                try:
                    with open(f"/proc/{pid}/mem", "rb") as memory:
                        memory.seek(id(None))
                        return len(memory.read(16)) == 16
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("its own memory is a file that ignores what may be written", DONE)
def writes_its_own_memory_file() -> str:
    return """
        import os
        def attack():
            for path in ("/proc/self/mem", "/proc/thread-self/mem", f"/proc/{os.getpid()}/mem"):
                try:
                    os.close(os.open(path, os.O_RDWR))
                    return True
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("descriptors of another process are copied", DONE)
def copies_foreign_descriptors() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            for pid in (CANARY.pid, os.getppid(), 1, os.getpid()):
                handle = libc.syscall(434, pid, 0)
                if handle >= 0 and any(libc.syscall(438, handle, descriptor, 0) >= 0 for descriptor in range(16)):
                    return True
            return False
    """


@ESCAPE.add("the program becomes another one", DONE)
def executes() -> str:
    return """
        import os, sys
        def attack():
            for path in (sys.executable, "/bin/true", "/usr/bin/env", "/usr/lib/ld-linux-x86-64.so.2",
                    "/lib64/ld-linux-x86-64.so.2"):
                for run in (os.execv, lambda p, a: os.execve(os.open(p, os.O_PATH), a, {})):
                    try:
                        run(path, [path, "-c", "import os; os.write(32, b'x')"])
                    except (OSError, ValueError):
                        pass
            return False
    """


@ESCAPE.add("another program is started", DONE)
def starts_programs() -> str:
    return """
        import os, subprocess, sys
        def attack():
            done = []
            for path in ("/bin/true", "/usr/bin/true", sys.executable):
                for run in (lambda: os.posix_spawn(path, [path, "--version"], {}),
                        lambda: subprocess.run([path, "--version"]),
                        lambda: os.spawnv(os.P_WAIT, path, [path, "--version"]) == 0 or 1 / 0):
                    try:
                        run()
                        done.append(path)
                    except (OSError, ArithmeticError):
                        pass
            return bool(done)
    """


@ESCAPE.add("a shell runs a command", DONE)
def runs_a_shell() -> str:
    return """
        import ctypes, os, pty
        def attack():
            if os.system("true") == 0 or ctypes.CDLL(None).system(b"true") == 0:
                return True
            try:
                return os.popen("echo zoo").read() == "zoo\\n"
            except OSError:
                return False
    """


@ESCAPE.add("a program that exists only in memory is run", DONE)
def executes_from_memory() -> str:
    return """
        import os
        def attack():
            file = os.memfd_create("zoo")
            os.write(file, b"#!/bin/true\\n")
            os.execve(file, ["zoo"], {})
    """


# --- environment and memory -------------------------------------------------------------------------------------------


@ESCAPE.add("the environment holds keys and tokens", learned)
def reads_the_environment() -> str:
    return """
        import ctypes, os, posix
        def attack():
            name = CANARY.env_name
            libc = ctypes.CDLL(None)
            libc.getenv.restype = ctypes.c_char_p
            found = os.environ.get(name) or posix.environ.get(name.encode()) or libc.getenv(name.encode())
            return found.decode() if isinstance(found, bytes) else found
    """


@ESCAPE.add("the environments of the process, its parent and others", learned)
def reads_environments_of_others() -> str:
    return """
        import os
        def attack():
            name = CANARY.env_name.encode() + b"="
            for pid in ("self", os.getppid(), CANARY.pid, 1):
                try:
                    for line in open(f"/proc/{pid}/environ", "rb").read().split(b"\\0"):
                        if line.startswith(name):
                            return line[len(name):].decode()
                except OSError:
                    pass
    """


@ESCAPE.add("the environment the process was started with, still on its stack", learned)
def reads_the_initial_stack() -> str:
    return """
        import ctypes, re
        def attack():
            libc = ctypes.CDLL(None)
            environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
            start = ctypes.cast(environ, ctypes.c_void_p).value
            text = ctypes.string_at(start, 4096)
            found = re.search(CANARY.env_name.encode() + b"=([^\\0]*)", text)
            return found.group(1).decode() if found else None
    """


@ESCAPE.add("the source of the program before is still an object somewhere", learned_earlier, SEARCH)
def finds_the_earlier_program_among_objects() -> str:
    return """
        import gc, re
        def attack():
            mark = CANARY.earlier_mark
            pattern = re.compile(re.escape(mark) + r"[\\w-]{8,}")
            gc.unfreeze()
            seen = set()
            for thing in gc.get_objects():
                for inner in gc.get_referents(thing):
                    if type(inner) in (str, bytes) and id(inner) not in seen:
                        seen.add(id(inner))
                        text = inner if type(inner) is str else inner.decode("latin-1")
                        if found := pattern.search(text):
                            return found.group(0)
    """


@ESCAPE.add("the source of the program before is still in freed memory", learned_earlier, SEARCH)
def finds_the_earlier_program_in_the_heap() -> str:
    return """
        import ctypes, re
        def attack():
            mark = CANARY.earlier_mark.encode()
            pattern = re.compile(re.escape(mark) + rb"[\\w-]{8,}")
            libc = ctypes.CDLL(None)
            libc.sbrk.restype = ctypes.c_void_p
            end = libc.sbrk(0)
            anchors = {id(object()) >> 18, id([]) >> 18, id(b"x" * 600) >> 18, id("x" * 9000) >> 18}
            for anchor in anchors:  # arenas of Python's allocator, as whole as they are mapped
                start = anchor << 18
                found = pattern.search(ctypes.string_at(start, 1 << 18))
                if found:
                    return found.group(0).decode()
            size = 0
            pipe_free = ctypes.create_string_buffer(1)
            while size < 64 << 20 and libc.madvise(ctypes.c_void_p((end - size - 4096) & ~4095), 4096, 0) == 0:
                size += 4096
            top = end & ~4095
            found = pattern.search(ctypes.string_at(top - size, size)) if size else None
            return found.group(0).decode() if found else None
    """


@ESCAPE.add("fresh memory holds what was freed by others", learned_earlier, SEARCH)
def finds_the_earlier_program_in_fresh_memory() -> str:
    return """
        import ctypes, mmap, re
        def attack():
            mark = CANARY.earlier_mark.encode()
            pattern = re.compile(re.escape(mark) + rb"[\\w-]{8,}")
            libc = ctypes.CDLL(None)
            libc.malloc.restype = ctypes.c_void_p
            for size in (64, 512, 4096, 1 << 16, 1 << 20):
                for _ in range(200):
                    block = libc.malloc(ctypes.c_size_t(size))
                    if found := pattern.search(ctypes.string_at(block, size)):
                        return found.group(0).decode()
            return None
    """


@ESCAPE.add("what the program before left: modules, caches, temporary names, descriptors", learned_earlier)
def finds_what_the_earlier_program_left() -> str:
    return """
        import linecache, os, re, sys, tempfile
        def attack():
            texts = [repr(linecache.cache), repr(sys.modules), repr(sys.path_importer_cache), repr(vars(sys))]
            for descriptor in range(64):
                try:
                    texts.append(os.pread(descriptor, 1 << 20, 0).decode("latin-1"))
                except OSError:
                    pass
            found = re.search(re.escape(CANARY.earlier_mark) + r"[\\w-]{8,}", " ".join(texts))
            return found.group(0) if found else None
    """


@ESCAPE.add("named shared memory", learned)
def reads_shared_memory() -> str:
    return """
        import ctypes, os
        from multiprocessing import shared_memory
        def attack():
            try:
                segment = shared_memory.SharedMemory(CANARY.shm_name)
                return bytes(segment.buf).rstrip(b"\\0").decode()
            except OSError:
                return open("/dev/shm/" + CANARY.shm_name).read()
    """


@ESCAPE.add("System V shared memory, semaphores and queues outlive their maker", DONE)
def makes_system_v_objects() -> str:
    return """
        import ctypes
        def attack():
            libc = ctypes.CDLL(None)
            segment = libc.shmget(0, 4096, 0o1600)
            if segment >= 0:
                libc.shmctl(segment, 0, None)
            semaphore = libc.semget(0, 1, 0o1600)
            if semaphore >= 0:
                libc.semctl(semaphore, 0, 0, 0)
            queue = libc.msgget(0, 0o1600)
            if queue >= 0:
                libc.msgctl(queue, 0, None)
            return max(segment, semaphore, queue) >= 0
    """


@ESCAPE.add("POSIX queues and semaphores have names that others see", DONE)
def makes_posix_objects() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            queue = libc.mq_open(b"/ra3kit-zoo", os.O_CREAT | os.O_RDWR, 0o600, None)
            if queue >= 0:
                libc.mq_unlink(b"/ra3kit-zoo")
                return True
            memory = libc.shm_open(b"/ra3kit-zoo", os.O_CREAT | os.O_RDWR, 0o600)
            if memory >= 0:
                libc.shm_unlink(b"/ra3kit-zoo")
            return memory >= 0
    """


@ESCAPE.add("keys in the kernel's keyrings", DONE)
def uses_keyrings() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            add, control = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
            return libc.syscall(control, 0, -3, 1) > 0 or libc.syscall(add, b"user", b"zoo", b"x", 1, -1) > 0
    """


# --- privileges and kernel --------------------------------------------------------------------------------------------


@ESCAPE.add("it becomes another user, or root", DONE)
def becomes_root() -> str:
    return """
        import os
        def attack():
            for change in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0),
                    lambda: os.setgroups([0]),
                    lambda: os.setreuid(-1, 0)):
                try:
                    change()
                    return True
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("new namespaces, in which it would be root", DONE)
def unshares() -> str:
    return """
        import ctypes
        def attack():
            libc = ctypes.CDLL(None)
            flags = (0x10000000, 0x20000, 0x40000000, 0x8000000, 0x4000000)
            return any(libc.unshare(flag) == 0 for flag in flags)
    """


@ESCAPE.add("namespaces of another process", DONE)
def enters_namespaces() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            for pid in (1, os.getppid(), CANARY.pid, "self"):
                for name in ("user", "mnt", "net", "pid"):
                    try:
                        if libc.setns(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), 0) == 0:
                            return True
                    except OSError:
                        pass
            return libc.setns(libc.syscall(434, 1, 0), 0x20000) == 0
    """


@ESCAPE.add("file systems are mounted or taken away", DONE)
def mounts() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            place = CANARY.writable_dir.encode()
            done = libc.mount(b"none", place, b"tmpfs", 0, None) == 0
            done = libc.umount2(place, 2) == 0 or done
            pivot = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
            done = done or libc.syscall(pivot, place, place) == 0
            return done or libc.syscall(430, b"tmpfs", 0) >= 0 or libc.syscall(428, -100, b"/", 0) >= 0
    """


@ESCAPE.add("filters and rulesets are replaced by one that allows all", DONE)
def undoes_seccomp() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            allow = (ctypes.c_uint64 * 1)(0x7FFF0000_00000006)
            class Program(ctypes.Structure):
                _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
            program = Program(1, ctypes.addressof(allow))
            libc.prctl(22, 2, ctypes.byref(program), 0, 0)
            libc.prctl(22, 0, 0, 0, 0)
            libc.prctl(38, 0, 0, 0, 0)
            number = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
            libc.syscall(number, 1, 0, ctypes.byref(program))
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            return True
    """


@ESCAPE.add("process settings that weaken other walls: dumpable, parent's death, keep capabilities", DONE)
def changes_process_settings() -> str:
    return """
        import ctypes
        def attack():
            libc = ctypes.CDLL(None)
            settings = ((4, 1), (1, 0), (8, 1), (36, 1), (47, 2), (0x59616D61, -1))
            return any(libc.prctl(option, value, 0, 0, 0) == 0 for option, value in settings)
    """


@ESCAPE.add("limits are raised", DONE)
def raises_limits() -> str:
    return """
        import resource
        def attack():
            for name in ("AS", "CPU", "FSIZE", "NOFILE", "NPROC", "CORE", "MEMLOCK", "MSGQUEUE"):
                kind = getattr(resource, "RLIMIT_" + name, None)
                if kind is None:
                    continue
                soft, hard = resource.getrlimit(kind)
                for value in (resource.RLIM_INFINITY, hard + 1, 1 << 40):
                    try:
                        resource.setrlimit(kind, (value, value))
                        if hard != resource.RLIM_INFINITY and value != hard:
                            return True
                    except (OSError, ValueError, OverflowError):
                        pass
            return False
    """


@ESCAPE.add("limits of another process are read and changed", DONE)
def changes_foreign_limits() -> str:
    return """
        import os, resource
        def attack():
            for pid in (CANARY.pid, os.getppid() or 1, 1):
                if pid == os.getpid():
                    continue
                try:
                    resource.prlimit(pid, resource.RLIMIT_CORE)
                    return True
                except OSError:
                    pass
            return False
    """


@ESCAPE.add("priorities and processors: more than its share", DONE)
def changes_scheduling() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            ioprio = {"x86_64": 251, "aarch64": 30}[os.uname().machine]
            for change in (lambda: os.nice(-1), lambda: os.sched_setaffinity(0, {0}),
                    lambda: os.setpriority(os.PRIO_PROCESS, 0, -1),
                    lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)),
                    lambda: os.sched_setaffinity(CANARY.pid, {0})):
                try:
                    change()
                    return True
                except OSError:
                    pass
            return libc.syscall(ioprio, 1, 0, 1 << 13 | 4) == 0
    """


@ESCAPE.add("a terminal is given input as if it had been typed", DONE)
def types_into_a_terminal() -> str:
    return """
        import fcntl
        def attack():
            for descriptor in range(3):
                for request, argument in ((0x5412, b"\\n"), (0x540E, b"\\0"), (0x541C, b"\\x0a")):
                    try:
                        fcntl.ioctl(descriptor, request, argument)
                        return True
                    except OSError:
                        pass
            open("/dev/tty", "w")
            return True
    """


@ESCAPE.add("descriptors are made to send signals to others, or to hold more", DONE)
def changes_descriptors() -> str:
    return """
        import fcntl, os
        def attack():
            for descriptor in range(64):
                for command, argument in ((8, os.getpid()), (10, 9), (1031, 1 << 20), (1024, 1), (1026, 2), (1033, 0)):
                    try:
                        fcntl.fcntl(descriptor, command, argument)
                        return True
                    except (OSError, ValueError):
                        pass
            return False
    """


@ESCAPE.add("the clock is set (to what it shows)", DONE)
def sets_the_clock() -> str:
    return """
        import time
        def attack():
            time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))
            return True
    """


@ESCAPE.add("the machine's name is set (to what it is)", DONE)
def sets_the_host_name() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            name = os.uname().nodename.encode()
            return libc.sethostname(name, len(name)) == 0 or libc.setdomainname(b"(none)", 6) == 0
    """


@ESCAPE.add("calls of an administrator, with arguments that change nothing", DONE)
def administers() -> str:
    return """
        import ctypes, errno, os
        def attack():
            libc = ctypes.CDLL(None, use_errno=True)
            reboot, swapon, quota, acct, init_module, iopl = {
                "x86_64": (169, 167, 179, 163, 175, 172), "aarch64": (142, 224, 60, 89, 105, -1),
            }[os.uname().machine]
            calls = [(reboot, 0xFEE1DEAD, 672274793, 0, None), (swapon, b"/nonexistent", 0),
                    (quota, 0x80000700, None, 0, None),
                    (acct, b"/nonexistent"), (init_module, b"", 0, b""), (iopl, 0)]
            for call in calls:
                ctypes.set_errno(0)
                if libc.syscall(*call) == 0 or ctypes.get_errno() in (errno.ENOENT, errno.EINVAL, errno.ENOEXEC):
                    return True
            return False
    """


@ESCAPE.add("programs for the kernel: bpf", DONE)
def loads_bpf() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
            attribute = (ctypes.c_uint32 * 32)(2, 4, 4, 1)
            return libc.syscall(number, 0, attribute, 128) >= 0
    """


@ESCAPE.add("counters of the processor see other processes", DONE)
def opens_performance_counters() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            number = {"x86_64": 298, "aarch64": 241}[os.uname().machine]
            attribute = (ctypes.c_uint32 * 32)(1, 128)
            return any(libc.syscall(number, attribute, pid, -1, -1, 0) >= 0 for pid in (0, CANARY.pid))
    """


@ESCAPE.add("page faults handled by the program: a tool to exploit the kernel", DONE)
def handles_page_faults() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            number = {"x86_64": 323, "aarch64": 282}[os.uname().machine]
            return libc.syscall(number, 1) >= 0 or libc.syscall(number, 0) >= 0
    """


@ESCAPE.add("kernel objects nobody needs: events, timers, watches, secret memory, Landlock of its own", DONE)
def makes_kernel_objects() -> str:
    return """
        import ctypes, os
        def attack():
            libc = ctypes.CDLL(None)
            eventfd, signalfd, timerfd, inotify, epoll, fanotify = {
                "x86_64": (290, 289, 283, 294, 291, 300), "aarch64": (19, 74, 85, 26, 20, 262),
            }[os.uname().machine]
            calls = [(eventfd, 0, 0), (signalfd, -1, bytes(8), 8, 0), (timerfd, 1, 0), (inotify, 0), (epoll, 0),
                    (fanotify, 0, 0),
                    (447, 0), (444, None, 0, 1)]
            return any(libc.syscall(*call) >= 0 for call in calls)
    """


_MACHINE_CODE = """
        import ctypes, mmap, os
        def attack():
            if os.uname().machine != "x86_64":
                return False
            page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            page.write(bytes.fromhex("{code}"))
            start = ctypes.addressof(ctypes.c_char.from_buffer(page))
            return ctypes.CFUNCTYPE(ctypes.c_long)(start)() == os.getpid()
    """


@ESCAPE.add("a call through the 32-bit table, whose numbers a filter takes for others", DONE)
def calls_by_int_80() -> str:
    return _MACHINE_CODE.format(code="b814000000cd80c3")


@ESCAPE.add("a call through the x32 table", DONE)
def calls_by_x32() -> str:
    return _MACHINE_CODE.format(code="b8270000400f05c3")


@ESCAPE.add("a core file is written when it crashes", Calls("attack", [[]], ["never right"]))
def dumps_core() -> str:
    return """
        import ctypes, os, resource
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except (OSError, ValueError):
            pass
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
        def attack():
            os.abort()
    """


@ESCAPE.add("it leaves its session and group, so that a kill of the group misses it", DONE)
def leaves_its_group() -> str:
    return """
        import os
        def attack():
            for change in (os.setsid, lambda: os.setpgid(0, 0), lambda: os.setpgid(0, os.getppid())):
                try:
                    change()
                    return True
                except OSError:
                    pass
            return False
    """
