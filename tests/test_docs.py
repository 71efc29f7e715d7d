"""The documentation: complete, its links and commands real, and built strictly where mkdocs is installed."""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ra3kit.cli import VERBS
from ra3kit.recipe import shipped

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def load(name: str) -> ModuleType:
    """A hook of the site, as mkdocs loads it: from its file."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "_hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


hooks: Any = load("pages")
PAGES: list[Path] = [*hooks.pages(), ROOT / "README.md"]
IDS = [path.relative_to(ROOT).as_posix() for path in PAGES]


def in_nav(node: Any) -> list[str]:
    """Every page that a navigation names."""
    if isinstance(node, str):
        return [node]
    return [page for child in (node.values() if isinstance(node, dict) else node) for page in in_nav(child)]


def headings(markdown: str) -> list[str]:
    """The texts of a page's headings, without markup."""
    found = re.findall(r"^#+ +(.+?) *$", hooks.FENCE.sub("", markdown), re.MULTILINE)
    return [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text) for text in found]


def blocks(markdown: str, language: str) -> list[str]:
    """The contents of a page's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)


# --- completeness ----------------------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation_once() -> None:
    named = in_nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    there = {hooks.site_source(path.relative_to(ROOT).as_posix()) for path in hooks.pages()}
    assert set(named) == there, "add the page to `nav` in mkdocs.yml, or take it out there"
    assert len(named) == len(set(named))


@pytest.mark.parametrize("page", hooks.pages(), ids=IDS[:-1])
def test_a_page_has_one_title_and_then_says_what_it_is_for(page: Path) -> None:
    text = page.read_text()
    title, _, rest = text.partition("\n")
    assert title.startswith("# ")
    assert not re.search(r"^# ", hooks.FENCE.sub("", rest), re.MULTILINE), "a second title"
    first = rest.strip().splitlines()[0]
    assert not first.startswith(("#", "`" * 3, "|", "-", "!", "<")), f"open with a sentence, not with {first!r}"


def test_the_gallery_lists_every_recipe_with_purpose_hardware_and_launch() -> None:
    headers = {header.name: header for header in hooks.recipe_headers()}
    assert headers.keys() == shipped().keys()
    gallery = hooks.expand((DOCS / "recipes.md").read_text())
    for name, header in headers.items():
        assert header.purpose, f"{name}: its header does not say what it trains"
        assert header.hardware, f"{name}: its header does not say on what hardware"
        assert header.launch.startswith(f"ra3kit fit --recipe {name}")
        assert header.override.startswith(f"ra3kit fit --recipe {name} ")
        assert f"| [`{name}`](#{hooks.anchor(name)}) | {header.purpose} | {header.hardware} |" in gallery
        assert f"\n## {name}\n" in gallery
        assert f"\n{header.launch}\n" in gallery


def test_the_commands_page_shows_every_verb() -> None:
    page = hooks.expand((DOCS / "commands.md").read_text())
    for verb in VERBS:
        assert f"## ra3kit {verb}\n" in page
        assert f"usage: ra3kit {verb} " in page


def test_every_public_module_is_on_one_api_page() -> None:
    marks = [mark for page in sorted((DOCS / "api").glob("*.md")) for mark in hooks.API_MARK.findall(page.read_text())]
    shown = [module for mark in marks for module in hooks.modules(mark)]
    folders = [folder for folder in (ROOT / "ra3kit").iterdir() if (folder / "__init__.py").is_file()]
    files = [ROOT / "ra3kit", *(folder for folder in folders if folder.name != "cli")]
    public = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in files
        for path in folder.glob("*.py")
        if not path.stem.startswith("_")
    }
    assert set(shown) == public
    assert len(shown) == len(set(shown))


def test_every_results_file_of_a_benchmark_is_in_the_docs() -> None:
    linked = hooks.linked_sources()
    for path in sorted((ROOT / "benchmarks" / "results").iterdir()):
        assert path.relative_to(ROOT).as_posix() in linked, "link it from the page that states its figures"


# --- truth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_and_anchors_lead_somewhere(page: Path) -> None:
    for target, anchor in hooks.links(hooks.expand(page.read_text())):
        path = ROOT / hooks.repository_path(page, target) if target else page
        assert path.is_file(), f"{page.name}: {target}"
        if anchor:
            anchors = {hooks.anchor(text) for text in headings(hooks.expand(path.read_text()))}
            assert anchor in anchors, f"{page.name}: {target}#{anchor}"


def commands_of(page: Path) -> list[list[str]]:
    """The `ra3kit` commands in a page's shell blocks, as words."""
    text = page.read_text()
    lines = "\n".join([*blocks(text, "bash"), *blocks(text, "console")]).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        for match in re.finditer(r"(?<![\w/.\-])(?<!--benchmark )(?:ra3kit|-m ra3kit\.cli) ", line.partition(" #")[0]):
            rest = re.split(r"\s[|>&;]|\)", line[match.end() :])[0]
            found.append(shlex.split(rest, comments=True))
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_name_verbs_and_recipes_that_exist(page: Path) -> None:
    for words in commands_of(page):
        assert words[0] in VERBS or words[0].startswith("-"), words
        if "--recipe" in words:
            name = words[words.index("--recipe") + 1]
            assert name in shipped() or name.endswith(".yaml") or name == "...", words


def test_commands_are_found() -> None:
    assert ["ls"] in commands_of(ROOT / "README.md")
    several = commands_of(DOCS / "clusters.md")
    assert any("trainer.num_nodes=2" in words and words[0] == "fit" for words in several)


@pytest.mark.parametrize("page", [p for p in PAGES if ">>> " in p.read_text()], ids=lambda p: p.name)
def test_examples_run(page: Path) -> None:
    for number, block in enumerate(blocks(page.read_text(), "pycon")):
        test = doctest.DocTestParser().get_doctest(block, {}, f"{page.name}:{number}", str(page), 0)
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_say_their_language_and_parse(page: Path) -> None:
    text = page.read_text()
    opening = [match[0].splitlines()[0].strip() for match in hooks.FENCE.finditer(text)]
    assert "```" not in opening, "a block without a language is not highlighted"
    for block in blocks(text, "python"):
        compile(block, str(page), "exec", flags=0x2000)  # top-level await is allowed
    for block in blocks(text, "yaml"):
        yaml.safe_load(block)


# --- the hooks -------------------------------------------------------------------------------------------------------


def test_links_are_rewritten_for_the_site_and_code_is_left_alone() -> None:
    text = (
        "[a](../benchmarks/results/x.json#k) [b](../CHANGELOG.md) [c](data.md) [d](https://x.y/)\n```\n[e](../f)\n```\n"
    )
    assert hooks.rewrite_links(text, DOCS / "page.md") == (
        "[a](source/benchmarks/results/x.json.md#k) [b](changelog.md) [c](data.md) [d](https://x.y/)\n"
        "```\n[e](../f)\n```\n"
    )
    assert hooks.rewrite_links("[a](../data.md)", DOCS / "api" / "page.md") == "[a](../data.md)"
    assert hooks.rewrite_links("[a](docs/data.md)", ROOT / "CONTRIBUTING.md") == "[a](data.md)"


def test_a_source_page_survives_fences_in_the_source() -> None:
    page = hooks.source_page("docs/_hooks/docstrings.py")  # it holds three backticks
    assert page.count("````python") == 1
    assert page.rstrip().endswith("````")


@pytest.mark.skipif(importlib.util.find_spec("latex2mathml") is None, reason="latex2mathml (extra docs) is missing")
def test_formulas_become_mathml() -> None:
    made = hooks.draw_formulas(r'<p><span class="arithmatex">\(\log \pi(a \mid s) &lt; c\)</span></p>')
    assert made.startswith("<p><math")
    assert "arithmatex" not in made
    assert "&#x003C0;" in made  # pi
    assert "&#x0003C;" in made  # less than
    assert '<mi>log</mi><mspace width="0.167em"/>' in made


@pytest.mark.skipif(importlib.util.find_spec("griffe") is None, reason="griffe (extra docs) is missing")
def test_docstrings_become_markdown() -> None:
    module = load("docstrings")
    assert doctest.testmod(module).failed == 0
    assert module.as_markdown("a\n\n    >>> x[0][1]\n    2") == "a\n\n    ```pycon\n    >>> x[0][1]\n    2\n    ```"


@pytest.mark.skipif(
    shutil.which("mkdocs", path=str(Path(sys.executable).parent)) is None, reason="no mkdocs: make docs"
)
@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    loads = re.compile(
        r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?https?:|<link\b(?=[^>]*stylesheet)[^>]*href=[\"']?https?:"
    )
    for page in tmp_path.rglob("*.html"):
        text = page.read_text()
        assert not loads.search(text), page.name
        assert 'class="arithmatex"' not in text, f"{page.name}: a formula was not drawn"
        assert not re.search("<!-- (api|recipes|commands)", text), f"{page.name}: a marker was not filled in"
    abstraction = (tmp_path / "api" / "abstraction.html").read_text()
    assert 'id="ra3kit.abstraction.prior.LatentPrior.penalty"' in abstraction
    assert "<act>" not in abstraction
