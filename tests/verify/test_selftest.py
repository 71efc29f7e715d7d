"""The whole zoo, on this machine; and that the self-test would notice."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ra3kit.verify import zoo
from ra3kit.verify.canaries import Canaries
from ra3kit.verify.isolation import NoSandbox
from ra3kit.verify.problem import Calls, Problem, Verdict
from ra3kit.verify.selftest import Report, selftest, won


@pytest.fixture(scope="module")
def report():
    try:
        return selftest([("def f(x): return x", Problem("same", Calls("f", [[1]], [1])))])
    except NoSandbox as error:
        pytest.skip(str(error))


def test_every_attack_is_contained(report):
    assert report.lost == {}
    assert sum(report.attacks.values()) + len(report.limits) >= 80
    assert set(report.attacks) == {"forging", "exhaustion", "escape"}


def test_honest_programs_pass(report):
    assert report.rejected == {}
    assert report.solutions == len(zoo.honest()) + 1


def test_nothing_is_left_behind(report):
    assert report.left_behind == []


def test_a_report_holds_only_if_nothing_was_found():
    assert Report().holds
    assert Report(limits={"x": "known"}).holds
    for found in ({"rejected": {"a": "b"}}, {"lost": {"a": "b"}}, {"left_behind": ["file"]}):
        assert not Report(**found).holds


@pytest.fixture
def canaries():
    with Canaries() as found:
        yield found


def attack(canaries):
    return next(iter(zoo.attacks(canaries.canary)))


def test_an_attack_has_won_by_its_verdict(canaries):
    one = attack(canaries)
    assert won(one, Verdict("pass"), 0.1, canaries)
    assert won(one, Verdict("internal"), 0.1, canaries)
    assert not won(one, Verdict("fail"), 0.1, canaries)
    assert "took" in won(one, Verdict("timeout"), 1000.0, canaries)
    assert "CPU" in won(one, Verdict("timeout", seconds=1000.0), 1.0, canaries)
    assert "secret" in won(one, Verdict("fail", f"it is {canaries.canary.secret}"), 0.1, canaries)


def write(canaries):
    Path(canaries.canary.writable_dir, "new").write_text("x")


def change(canaries):
    Path(canaries.canary.secret_file).write_text("x")


def call(canaries):
    socket.create_connection(("127.0.0.1", canaries.canary.tcp_port)).close()


def call_abstract(canaries):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(f"\0{canaries.canary.abstract_socket}")


def send(canaries):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("127.0.0.1", canaries.canary.tcp_port))


def stop(canaries):
    os.kill(canaries.canary.pid, 19)
    while Path(f"/proc/{canaries.canary.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        pass


def overwrite(canaries):
    Path("/dev/shm", canaries.canary.shm_name).write_text("x")


@pytest.mark.parametrize("touch", [write, change, call, call_abstract, send, stop, overwrite])
def test_a_touched_canary_is_noticed_once(canaries, touch):
    assert canaries.touched() == []
    touch(canaries)
    assert len(canaries.touched()) >= 1
    assert canaries.touched() == []


def test_left_overs_are_noticed(canaries, tmp_path, monkeypatch):
    path = Path("/dev/shm", f"ra3kit-zoo-{os.getpid()}")
    path.write_text("x")
    try:
        assert canaries.left_behind(lambda path, stat: "zoo" in path) == [f"file {path}"]
        assert canaries.left_behind(lambda path, stat: False) == []
    finally:
        path.unlink()
