"""With every network socket refused and counted, the whole default path works, and nothing even tried to connect.

A process of its own runs it: `sitecustomize` on its path replaces what Python connects with before anything else is
imported. Sockets between processes of this machine (AF_UNIX, which the sandbox uses) are left alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_recipes import NTP, RA3, write_code

BLOCK = '''
import os
import socket

LOG = os.environ["ATTEMPTS"]


def refuse(what):
    with open(LOG, "a") as log:
        log.write(what + "\\n")
    raise OSError(101, "Network is unreachable")


class Local(socket.socket):
    """Sockets that reach no other machine."""

    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        if fileno is None and family != socket.AF_UNIX:
            refuse(f"socket {family} {type}")
        super().__init__(family, type, proto, fileno)


def no_look_up(*arguments, **_):
    refuse(f"look-up {arguments}")


socket.socket = Local
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = no_look_up
'''


class Blocked:
    """A desk whose processes cannot connect; `attempts()` is what they tried."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "attempts.txt"
        (folder / "block").mkdir()
        (folder / "block" / "sitecustomize.py").write_text(BLOCK)

    def run(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.folder / "block"), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
        plain = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")}
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.folder,
            env={**plain, "PYTHONPATH": path, "ATTEMPTS": str(self.log), "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def attempts(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> Blocked:
    desk = Blocked(tmp_path_factory.mktemp("desk"))
    write_code(desk.folder / "code")
    (desk.folder / "ntp.yaml").write_text(NTP)
    (desk.folder / "ra3.yaml").write_text(RA3)
    return desk


def calls(*lines: str) -> str:
    """A program that runs the command line, once for each line, and stops at the first failure."""
    return "from ra3kit.cli import main\n" + "".join(
        f"assert main({line.split()!r}) == 0, {line!r}\n" for line in lines
    )


def test_the_block_holds_and_counts(tmp_path: Path) -> None:
    desk = Blocked(tmp_path)
    tries = {
        "urllib.request.urlopen('http://127.0.0.1:9')": "import urllib.request",
        "socket.create_connection(('localhost', 9))": "import socket",
        "get_session().get('http://127.0.0.1:9')": "from huggingface_hub.utils import get_session",
    }
    for number, (attempt, first) in enumerate(tries.items()):
        before = len(desk.attempts())
        done = desk.run(f"{first}\n{attempt}")
        assert done.returncode == 1, (attempt, done.stdout)
        assert len(desk.attempts()) > before, (number, attempt, done.stderr)
    assert desk.run("import socket; a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))").stdout == "b'x'\n"


@pytest.mark.slow
def test_the_whole_default_path_never_tries_to_connect(blocked: Blocked) -> None:
    """Recipes, plans, training of each stage, annotation, report, evaluation, comparison; no variable says offline."""
    evaluate = "eval --benchmark ra3kit limit=2 max_new_tokens=4 workers=1"
    done = blocked.run(
        calls(
            "ls",
            "show tiny-ra3",
            "cp tiny-ra3 mine.yaml",
            "fit --recipe mine.yaml --dry-run data.path=code data.warmup_path=code model.policy.tokenizer.corpus=code",
            "fit --recipe ntp.yaml run.dir=runs/ntp/001",
            "fit --recipe ra3.yaml run.dir=runs/ra3/001",
            f"{evaluate} --model runs/ra3/001 --out one",
            f"{evaluate} --model runs/ra3/001/model-ntp --out two",
            "compare one two",
        )
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert blocked.attempts() == []
    for left in ("store/iteration-0/manifest.json", "report.md", "results.json", "model/model.safetensors"):
        assert (blocked.folder / "runs" / "ra3" / "001" / left).is_file()


@pytest.mark.slow
def test_every_recipe_without_a_hub_model_is_planned_without_a_connection(blocked: Blocked) -> None:
    recipes = ("quickstart", "tiny-ntp", "tiny-ra3", "tiny-brite")
    done = blocked.run(calls(*(f"fit --recipe {recipe} --dry-run" for recipe in recipes)))
    assert done.returncode == 0, done.stderr[-3000:]
    assert blocked.attempts() == []


@pytest.mark.slow  # the hub's client tries again and again, for half a minute, where nothing is set
@pytest.mark.parametrize("offline", [pytest.param("0", id="nothing set"), pytest.param("1", id="HF_HUB_OFFLINE=1")])
def test_a_hub_model_without_a_network_says_how_to_fetch_it(tmp_path: Path, offline: str) -> None:
    desk = Blocked(tmp_path)
    write_code(desk.folder / "code", 2)
    line = "fit --recipe qwen2.5-1.5b-ntp --dry-run data.path=code trainer.accelerator=cpu trainer.precision=32-true"
    done = desk.run(
        f"from ra3kit.cli import main\nraise SystemExit(main({line.split()!r}))",
        HF_HUB_OFFLINE=offline,
        HF_HOME=str(tmp_path / "hub"),
    )
    error = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.returncode == 2
    assert "'Qwen/Qwen2.5-1.5B' cannot be loaded" in error
    assert "hf download Qwen/Qwen2.5-1.5B --local-dir FOLDER" in error
    assert ("HF_HUB_OFFLINE is set" in error) == (offline == "1")
    assert bool(desk.attempts()) == (offline == "0")  # told to be offline, it doesn't even try
