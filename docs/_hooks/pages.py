"""Hooks of the documentation site (mkdocs.yml): what is made from the sources at build time, so that it can't go stale.

- `<!-- recipes -->`, `<!-- commands -->` and `<!-- api: PACKAGE -->` in a page become the recipes gallery, the help of
  every verb, and the docstrings of every module of a package.
- Links that leave docs/ work on the site as they do in the repository: CONTRIBUTING.md and CHANGELOG.md are pages, and
  any other file that a page links to is shown as one.
- Formulas become MathML, which browsers draw without a script.

What does not concern mkdocs itself is plain functions, so that the tests can ask them without it.
"""

from __future__ import annotations

import argparse
import html
import importlib
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
AS_PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
"""Files of the repository's root that are pages of the site, or stand for one."""
LANGUAGES = {
    ".md": "markdown",
    ".py": "python",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".toml": "toml",
    ".sh": "bash",
}
FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)(\]\()([^)\s#]*)(#[^)\s]*)?(\))")


# --- links -----------------------------------------------------------------------------------------------------------


def prose(markdown: str) -> str:
    """A page without its fenced blocks and inline code, where nothing is a link."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", markdown))


def links(markdown: str) -> Iterator[tuple[str, str]]:
    """(target, anchor) of every relative link of a page; the target is empty for a link within it."""
    for match in LINK.finditer(prose(markdown)):
        target, anchor = match[2], (match[3] or "").removeprefix("#")
        if not re.match(r"[a-z]+:", target):
            yield target, anchor


def repository_path(page: Path, target: str) -> str:
    """Where a relative link of `page` (a file of the repository) leads, as a path from the repository's root."""
    return posixpath.normpath(posixpath.join(page.relative_to(ROOT).parent.as_posix(), target))


def site_source(path: str) -> str:
    """The source path on the site, below docs/, of a path from the repository's root."""
    if path in AS_PAGES:
        return AS_PAGES[path]
    inside = path.removeprefix("docs/")
    return inside if inside != path else f"source/{path}.md"


def pages() -> list[Path]:
    """Every Markdown file of the site, those of the repository's root included."""
    own = [path for path in sorted(DOCS.rglob("*.md")) if "_hooks" not in path.parts]
    return [*own, *(ROOT / name for name, page in AS_PAGES.items() if page != "index.md")]


def linked_sources() -> list[str]:
    """Files outside docs/ that a page links to and that are no pages themselves, from the repository's root."""
    found = {
        repository_path(page, target) for page in pages() for target, _ in links(expand(page.read_text())) if target
    }
    outside = (path for path in found if not path.startswith("docs/") and path not in AS_PAGES)
    return sorted(path for path in outside if (ROOT / path).is_file())


def source_page(path: str) -> str:
    """A file of the repository as a page."""
    text = (ROOT / path).read_text()
    language = LANGUAGES.get(Path(path).suffix, "text")
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`{3,}", text) or [""]))
    return f"---\nsearch:\n  exclude: true\n---\n# `{path}`\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def rewrite_links(markdown: str, page: Path) -> str:
    """The links of a page as they must be on the site, where it may lie elsewhere than in the repository."""
    here = posixpath.dirname(site_source(page.relative_to(ROOT).as_posix()))

    def rewrite(match: re.Match[str]) -> str:
        if not match[2] or re.match(r"[a-z]+:", match[2]):
            return match[0]
        target = posixpath.relpath(site_source(repository_path(page, match[2])), here or ".")
        return f"{match[1]}{target}{match[3] or ''}{match[4]}"

    parts, last = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(rewrite, markdown[last : fence.start()]), fence[0]]
        last = fence.end()
    return "".join([*parts, LINK.sub(rewrite, markdown[last:])])


# --- recipes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecipeHeader:
    """The comment at the head of a recipe: what it trains, on what, how it is started, and what else is said there."""

    name: str
    purpose: str
    hardware: str
    launch: str
    override: str
    notes: str


def recipe_headers() -> list[RecipeHeader]:
    """The header of every recipe below recipes/, the quickstart first."""
    files = sorted((ROOT / "recipes").rglob("*.yaml"), key=lambda path: (path.stem != "quickstart", path.as_posix()))
    return [recipe_header(path) for path in files]


def recipe_header(path: Path) -> RecipeHeader:
    """Read the comment lines before the first section of a recipe."""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    fields = {"Hardware": "", "Launch": "", "Override": ""}
    notes = []
    for line in lines[1:]:
        word, _, rest = line.partition(" ")
        if word in fields and not fields[word]:
            fields[word] = rest.strip()
        elif line:
            notes.append(line)
    name = path.relative_to(ROOT / "recipes").with_suffix("").as_posix()
    return RecipeHeader(name, lines[0], fields["Hardware"], fields["Launch"], fields["Override"], " ".join(notes))


def recipes_gallery() -> str:
    """A table of all recipes, then each with its launch command."""
    headers = recipe_headers()
    out = ["| recipe | what it trains | hardware |", "|---|---|---|"]
    out += [f"| [`{r.name}`](#{anchor(r.name)}) | {r.purpose} | {r.hardware} |" for r in headers]
    for r in headers:
        out += ["", f"## {r.name}", "", f"{r.purpose}. Hardware: {r.hardware}", ""]
        out += ["```bash", r.launch, f"{r.override}   # for example", "```", ""]
        notes = re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", r.notes)
        out += [notes, "", f"The file: [recipes/{r.name}.yaml](../recipes/{r.name}.yaml)."]
    return "\n".join(out)


def anchor(heading: str) -> str:
    """The anchor of a heading, as Markdown's table of contents makes it."""
    text = re.sub(r"[^\w\s-]", "", heading).strip().lower()
    return re.sub(r"[-\s]+", "-", text)


# --- commands and API ------------------------------------------------------------------------------------------------


def commands() -> str:
    """The help of every verb."""
    from ra3kit.cli import VERBS

    out = []
    for verb, what in VERBS.items():
        module = importlib.import_module(f"ra3kit.cli.{verb}")
        parser = argparse.ArgumentParser(
            prog=f"ra3kit {verb}",
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        with mock.patch.dict(os.environ, COLUMNS="110"):
            text = parser.format_help()
        out += [f"## ra3kit {verb}", "", f"{what[0].upper()}{what[1:]}.", "", "```text", text.rstrip(), "```", ""]
    return "\n".join(out)


API_MARK = re.compile(r"<!-- api: ([\w.*]+) -->")


def modules(mark: str) -> list[str]:
    """The modules that a mark of an API page stands for.

    Args:
        mark: a module; a package, for all its public modules; or `ra3kit.*`, for those at the top that no page names.
    """
    if (ROOT / f"{mark.replace('.', '/')}.py").is_file():
        return [mark]
    name = mark.removesuffix(".*")
    files = sorted((ROOT / name.replace(".", "/")).glob("*.py"))
    found = [f"{name}.{path.stem}" for path in files if not path.stem.startswith("_")]
    if mark == name:
        return found
    named = {other for page in (DOCS / "api").glob("*.md") for other in API_MARK.findall(page.read_text())}
    return [module for module in found if module not in named]


def api(mark: str) -> str:
    """The directives that show the docstrings of the modules of a mark."""
    return "\n\n".join(f"::: {name}" for name in modules(mark))


def expand(markdown: str) -> str:
    """Fill in the markers of a page."""
    if "<!-- recipes -->" in markdown:
        markdown = markdown.replace("<!-- recipes -->", recipes_gallery())
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", commands())
    return API_MARK.sub(lambda match: api(match[1]), markdown)


# --- formulas --------------------------------------------------------------------------------------------------------


def mathml(latex: str, display: str) -> str:
    """A formula as MathML; `display` is "inline" or "block"."""
    from latex2mathml.converter import convert

    made = convert(html.unescape(latex).strip(), display=display)
    made = made.replace('<mn mathvariant="double-struck">1</mn>', "<mn>&#x1D7D9;</mn>")  # browsers know no such variant
    made = made.replace("<mi>&#x0007E;</mi>", "<mo>&#x223C;</mo>")  # \sim is a relation
    made = made.replace(
        '<mo stretchy="false">&#x0007C;</mo>', '<mo stretchy="false" lspace="0" rspace="0">&#x0007C;</mo>'
    )
    return re.sub(r'<mi>log</mi>(?!<mo stretchy="false">&#x00028;)', '<mi>log</mi><mspace width="0.167em"/>', made)


def draw_formulas(page: str) -> str:
    """The formulas that Markdown has marked in a page's HTML, as MathML."""
    page = re.sub(
        r'<div class="arithmatex">\\\[(.*?)\\\]</div>', lambda m: mathml(m[1], "block"), page, flags=re.DOTALL
    )
    return re.sub(
        r'<span class="arithmatex">\\\((.*?)\\\)</span>', lambda m: mathml(m[1], "inline"), page, flags=re.DOTALL
    )


# --- events of mkdocs ------------------------------------------------------------------------------------------------


def on_config(config: Any) -> None:
    """Take the package from this checkout, whichever one is installed."""
    sys.path.insert(0, str(ROOT))


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/."""
    from mkdocs.structure.files import File, InclusionLevel

    for name, page in AS_PAGES.items():
        if page != "index.md":
            files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    for path in linked_sources():
        made = File.generated(config, site_source(path), content=source_page(path), inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(made)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in the markers and turn the links of a page to where they lead on the site."""
    if page.file.src_uri.startswith("source/"):
        return markdown
    outside = {there: name for name, there in AS_PAGES.items() if there != "index.md"}
    source = ROOT / outside[page.file.src_uri] if page.file.src_uri in outside else DOCS / page.file.src_uri
    return rewrite_links(expand(markdown), source)


def on_page_content(page_html: str, page: Any, config: Any, files: Any) -> str:
    """Draw the formulas."""
    return draw_formulas(page_html)


def on_post_build(config: Any) -> None:
    """The search index as a script too, for pages that are opened as files."""
    index = Path(config.site_dir) / "search" / "search_index.json"
    index.with_suffix(".js").write_text(f"var __index = {index.read_text()}")
