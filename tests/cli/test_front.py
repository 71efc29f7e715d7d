"""The front door: verbs, help, errors, and nothing heavy imported before it is needed."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ra3kit import __version__
from ra3kit.cli import VERBS, main

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "lightning", "transformers", "omegaconf", "yaml", "numpy", "jsonargparse")


def imported_by(arguments: list[str], folder: Path) -> set[str]:
    """The top-level modules that a fresh process has imported after running the command line once."""
    code = (
        "import sys\nfrom ra3kit.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print('MODULES', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES ")[2].split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)])
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert not imported_by(arguments, tmp_path) & set(HEAVY)


def test_listing_copying_and_showing_do_not_import_torch(desk: Path) -> None:
    assert not imported_by(["ls"], desk) & set(HEAVY)
    assert not imported_by(["cp", "toy.yaml", "mine.yaml"], desk) & set(HEAVY)
    assert (desk / "mine.yaml").exists()
    assert not imported_by(["show", "toy.yaml", "model.lr=1", "vars.seed=2"], desk) & {"torch", "lightning"}
    assert {"torch", "toys"} <= imported_by(["show", "toy.yaml", "model.reduction=sum"], desk)  # a key to look up


OPTIONAL = ("vllm", "flash_attn", "liger_kernel", "peft", "trl", "evalplus", "mkdocs", "material")


def test_optional_extras_are_not_imported_at_start(tmp_path: Path) -> None:
    """Every module of the package, beside extras that fail when they are imported."""
    for name in OPTIONAL:
        about = tmp_path / f"{name}-2.9.dist-info"  # or transformers imports a package to learn its version
        for folder in (tmp_path / name, about):
            folder.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.9\n")
        (tmp_path / name / "__init__.py").write_text("import sys\nsys.exit('extra imported: ' + __name__)\n")
    code = """if True:
        import importlib, pkgutil
        import ra3kit
        for _, name, _ in pkgutil.walk_packages(ra3kit.__path__, "ra3kit."):
            if not name.startswith(("ra3kit.verify.jail", "ra3kit.verify.zoo")) and "__main__" not in name:
                importlib.import_module(name)
        print("all imported")
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("all imported\n", 0), done.stderr[-2000:]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"ra3kit {verb} " in capsys.readouterr().out.partition("examples:")[2] + " " or verb == "ls"
    assert importlib.import_module(f"ra3kit.cli.{verb}").EXAMPLES.startswith("examples:\n  ra3kit ")


def test_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown and what in shown for verb, what in VERBS.items())
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ra3kit {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fitt"], f"No verb 'fitt'. Did you mean 'fit'? Verbs: {', '.join(VERBS)}."),
        (["fit"], "--recipe NAME|FILE is missing (or --resume PATH). Recipes: ra3kit ls"),
        (["fit", "--recipe", "x.yaml", "--data.path=y"], "Overrides are written without dashes: data.path=y"),
        (["fit", "--recipe", "x.yaml", "--wrong"], "unrecognized arguments: --wrong. See: ra3kit fit --help"),
        (["show", "x.yaml"], "No recipe file 'x.yaml'"),
    ],
)
def test_mistakes_end_in_2_with_one_line_on_stderr(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_the_installed_command_and_the_module_are_the_same(tmp_path: Path) -> None:
    by_module = [sys.executable, "-m", "ra3kit.cli", "--version"]
    installed = [str(Path(sys.executable).with_name("ra3kit")), "--version"]
    for command in (by_module, installed):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"ra3kit {__version__}\n"


def test_a_reader_that_goes_away_is_no_error(desk: Path) -> None:
    (desk / "long.yaml").write_text(
        (desk / "toy.yaml").read_text() + "".join(f"  x{i}: {'y' * 300}\n" for i in range(500))
    )
    command = f"{sys.executable} -m ra3kit.cli show long.yaml | head -n 1"
    done = subprocess.run(command, shell=True, cwd=desk, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("# a toy")
    assert done.stderr == ""
