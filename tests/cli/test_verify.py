"""`ra3kit verify` as a process: JSON in, JSON out, whatever the programs do."""

import json
import subprocess
import sys

import pytest

CALLS = {"entry_point": "f", "inputs": [[3]], "expected": [6]}
RIGHT, WRONG = "def f(x): return 2 * x", "def f(x): return x"
LOOP = "def f(x):\n    while True: pass"


def verify(text, *options, file=None):
    words = [sys.executable, "-m", "ra3kit.cli", "verify", *([file] if file else []), *options]
    return subprocess.run(words, input=text, capture_output=True, text=True, timeout=100, check=False)


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_file_of_everything_in_its_order(tmp_path):
    records = [
        CALLS | {"id": "right", "solution": RIGHT},
        CALLS | {"id": "loops", "solution": LOOP, "time_limit": 0.3},
        CALLS | {"id": "wrong", "solution": WRONG},
        {"id": "empty"},
        CALLS | {"id": "kills", "solution": "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGKILL)"},
        CALLS | {"id": "killall", "solution": "import os\ndef f(x):\n    os.kill(-1, 9)\n    return 6"},
        CALLS | {"id": "memory", "solution": "def f(x): return [0] * (1 << 30)", "memory_limit": 64},
        CALLS | {"id": "tuple", "solution": "def f(x): return (1, 2)", "expected": [[1, 2]]},
        {"id": "streams", "solution": "print(input()[::-1])", "inputs": ["abc\n"], "outputs": ["cba\n"]},
        {"task_id": "check", "solution": RIGHT, "entry_point": "f", "test": "def check(c):\n    assert c(1) == 2"},
        CALLS | {"solution": RIGHT},
    ]
    path = tmp_path / "programs.jsonl"
    path.write_text(lines(records) + "this is not json\n\n")
    done = verify(None, file=str(path))
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["id"], one["verdict"]) for one in found] == [
        ("right", "pass"),
        ("loops", "timeout"),
        ("wrong", "fail"),
        ("empty", "refused"),
        ("kills", "crash"),
        ("killall", "fail"),
        ("memory", "memory"),
        ("tuple", "pass"),
        ("streams", "pass"),
        ("check", "pass"),
        (11, "pass"),
        (12, "refused"),
    ]
    assert found[2]["failure"] == {"test": 0, "input": "[3]", "got": "3", "expected": "6"}
    assert "line 4" in found[3]["reason"]
    assert "12 programs: 5 pass" in done.stderr


def test_unordered_gives_every_id_once():
    records = [CALLS | {"id": i, "solution": LOOP if i == 0 else RIGHT, "time_limit": 1.0} for i in range(12)]
    done = verify(lines(records), "--unordered", "--workers", "2")
    ids = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert sorted(ids) == list(range(12))
    assert ids[0] != 0  # the one that loops is not waited for


def test_a_verdict_comes_while_the_stream_is_open():
    words = [sys.executable, "-m", "ra3kit.cli", "verify"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, text=True, **pipes) as ra3:
        for solution, verdict in ((RIGHT, "pass"), (WRONG, "fail"), (RIGHT, "pass")):
            ra3.stdin.write(lines([CALLS | {"solution": solution}]))
            ra3.stdin.flush()
            assert json.loads(ra3.stdout.readline())["verdict"] == verdict
        ra3.stdin.close()
        assert ra3.wait(30) == 0


def test_bytes_that_are_no_text_spoil_one_record_only():
    text = lines([CALLS | {"id": 1, "solution": RIGHT}]).encode()
    bad = text.replace(b"def f", b"def \xff")
    words = [sys.executable, "-m", "ra3kit.cli", "verify"]
    done = subprocess.run(words, input=bad + text, capture_output=True, timeout=100, check=False)
    assert [json.loads(line)["verdict"] for line in done.stdout.splitlines()] == ["fail", "pass"]


@pytest.mark.parametrize("options", [["--workers", "0"], ["--isolation", "magic"], ["--time-limit", "0.0"]])
def test_what_cannot_be_asked(options):
    done = verify("", *options)
    assert done.returncode == 2
    assert options[1] in done.stderr


def test_a_missing_file_is_named():
    done = verify(None, file="/nowhere/x.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert "/nowhere/x.jsonl" in done.stderr


def test_unsandboxed_is_written_into_every_verdict():
    done = verify(lines([CALLS | {"solution": RIGHT}]), "--unsandboxed")
    assert json.loads(done.stdout)["isolation"] == "none"
