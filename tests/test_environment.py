"""What a bug report needs: found where it is, explained where it is not, and nothing in it that is private."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ra3kit import __version__, environment
from ra3kit.cli import main

ROOT = Path(__file__).parents[1]


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *settings, "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "kept.py").write_text("x = 1\n")
    git(folder, "add", "kept.py")
    git(folder, "commit", "-qm", "first")
    return folder


def test_the_verb_prints_every_section_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ra3kit"]["version"] == __version__
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert found["system"]["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    for title, section in found.items():
        assert f"\n{title}\n" in f"\n{text}"
        assert all(f"  {key}" in text for key in section)


def test_a_probe_that_fails_says_why_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise OSError("no such\n thing")

    monkeypatch.setattr(environment, "memory", broken)
    monkeypatch.setattr(environment, "driver", broken)
    found = environment.environment(sandbox=False)
    assert found["memory"] == "unknown (OSError: no such thing)"
    assert found["gpu"]["driver"] == "unknown (OSError: no such thing)"
    assert found["processor"]["cores"] >= 1
    assert "memory\n  memory  unknown (OSError: no such thing)" in "\n".join(environment.lines(found))


def test_a_broken_torch_does_not_stop_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it raises
    assert main(["env", "--json"]) == 0
    gpu = json.loads(capsys.readouterr().out)["gpu"]
    assert gpu.startswith("unknown (ModuleNotFoundError: import of torch halted")


def test_only_variables_of_the_list_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "HF_TOKEN": "1",
        "AWS_SECRET_ACCESS_KEY": "2",
        "HOME": "3",
        "RA3KIT_TOKEN": "4",
        "NCCL_PASSWORD": "5",
        "WANDB_API_KEY": "6",
        "OMP_NUM_THREADS": "7",
        "RA3KIT_DATA": "8",
        "CUDA_VISIBLE_DEVICES": "9",
        "TOKENIZERS_PARALLELISM": "10",
        "HTTPS_PROXY": "11",
    }
    assert environment.variables(given) == {
        "CUDA_VISIBLE_DEVICES": "9",
        "OMP_NUM_THREADS": "7",
        "RA3KIT_DATA": "8",
        "TOKENIZERS_PARALLELISM": "10",
    }
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    assert "hf_0123456789" not in json.dumps(environment.environment(torch=False, sandbox=False))


def test_limits_of_both_versions_of_control_groups(tmp_path: Path) -> None:
    two, one = tmp_path / "v2", tmp_path / "v1"
    two.mkdir()
    assert (environment.cpu_limit(two), environment.memory_limit(two)) == ("none", "none")
    (two / "cpu.max").write_text("150000 100000\n")
    (two / "memory.max").write_text(f"{3 * 2**29}\n")
    assert (environment.cpu_limit(two), environment.memory_limit(two)) == ("1.5 cores", "1.5 GiB")
    (two / "cpu.max").write_text("max 100000\n")
    (two / "memory.max").write_text("max\n")
    assert (environment.cpu_limit(two), environment.memory_limit(two)) == ("none", "none")
    (one / "cpu").mkdir(parents=True)
    (one / "memory").mkdir()
    (one / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    (one / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (one / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # what "no limit" looks like there
    assert (environment.cpu_limit(one), environment.memory_limit(one)) == ("2 cores", "none")


def test_a_commit_says_how_many_files_differ_from_it(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo")
    clean = environment.commit(folder)
    assert clean == {"commit": git(folder, "rev-parse", "HEAD"), "branch": "main", "changed": 0}
    (folder / "kept.py").write_text("x = 2\n")
    (folder / "new.py").write_text("")
    assert environment.commit(folder)["changed"] == 2
    (tmp_path / "plain").mkdir()
    assert environment.commit(tmp_path / "plain") == {}


def test_a_package_installed_below_a_repository_is_no_checkout_of_it(tmp_path: Path) -> None:
    folder = repository(tmp_path / "project")
    installed = folder / ".venv" / "site-packages" / "ra3kit"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert environment.kit_commit(installed).get("commit") != git(folder, "rev-parse", "HEAD")
    git(folder, "add", "-f", ".")
    git(folder, "commit", "-qm", "now it is part of it")
    assert environment.kit_commit(installed)["commit"] == git(folder, "rev-parse", "HEAD")


def test_extras_are_named_and_none_is_imported(tmp_path: Path) -> None:
    named = environment.extras()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if set(named) != set(extras):
        pytest.skip("ra3kit is not installed, or was before its extras changed")
    assert {"peft", "matplotlib", "evalplus", "vllm", "flash-attn"} <= set(environment.optional())
    code = (
        "import sys\nfrom ra3kit.environment import environment\nenvironment(torch=False)\nlight = set(sys.modules)\n"
        "environment(sandbox=False)\nprint('torch' in light, *{'peft', 'matplotlib', 'evalplus', 'transformers', "
        "'lightning', 'triton', 'vllm', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["False"]


def test_the_sandbox_is_named_or_its_absence_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from ra3kit.verify import probe
    from ra3kit.verify.isolation import refusal

    async def none_stands(*_: Any) -> Any:
        raise refusal({"landlock": "Function not implemented"})

    monkeypatch.setattr(probe, "first_that_holds", none_stands)
    assert environment.walls().startswith("none: No sandbox: landlock ENOSYS")
