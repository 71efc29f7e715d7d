"""A component explained from its signature and docstring: what `ra3kit explain` prints."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ra3kit import docstrings
from ra3kit.contracts import CONTRACTS, Contract, classes
from ra3kit.errors import RecipeError, nearest
from ra3kit.recipe import load, to_yaml
from ra3kit.signatures import UNKNOWN, Argument, Signature, component_classes, import_class, signature_of, spell

REQUIRED = "???"
"""How a recipe writes a value that has yet to be given."""


@dataclass(frozen=True)
class Asked:
    """What is to be explained.

    Args:
        target: a class or a factory.
        path: its import path.
        key: where a recipe has it; "" when it was asked for by its path.
        values: the arguments the recipe gives it.
        argument: explain this one alone; "" for all.
        named: whether the recipe names it by `class_path`; settings such as `optimization` are known by their key.
    """

    target: Any
    path: str
    key: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    argument: str = ""
    named: bool = True


def by_path(path: str) -> Asked:
    """A class by its import path.

    Raises:
        RecipeError: there is no such class; the message has the nearest.
    """
    if inside := [item.name for item in classes() if item.path.rpartition(".")[0] == path]:
        raise RecipeError(f"{path} is a module. Name a class of it: {path}.{inside[0]} ({', '.join(inside)}).")
    return Asked(import_class(path, ""), path)


def in_recipe(name: str, key: str) -> Asked:
    """The component that stands at a key of a recipe, or one argument of it.

    Raises:
        RecipeError: no such recipe or key, or no component there.
    """
    from lightning.pytorch import Trainer

    tree = load(name).tree
    sections = [section for section in ("model", "data", "trainer") if section in tree]
    first, *rest = key.split(".")
    if first not in sections:
        close = nearest(first, sections)
        raise RecipeError(f"{name}:{key}: no component there.{close} Sections with components: {', '.join(sections)}.")
    node = tree[first]
    owner = Trainer if first == "trainer" else None
    here = _component(node, owner, first)
    for depth, part in enumerate(rest):
        at = ".".join([first, *rest[: depth + 1]])
        parent, node, hint = here, *_descend(here, node, part, f"{name}:{at}")
        classes = component_classes(hint)
        here = _component(node, classes[0] if len(classes) == 1 and isinstance(node, dict) else None, at)
        if here is None and not (isinstance(node, list | dict) and depth + 1 < len(rest)):
            if parent is None or part.isdigit():
                raise RecipeError(f"{name}:{key}: no component there, but the value {node!r}.")
            if depth + 1 < len(rest):
                raise RecipeError(f"{name}:{key}: {at} is the value {node!r}, which has no keys of its own.")
            return Asked(parent.target, parent.path, parent.key, parent.values, part, parent.named)
    if here is None:
        raise RecipeError(f"{name}:{key}: no component there, but {type(node).__name__}.")
    return here


def _component(node: Any, owner: Any, key: str) -> Asked | None:
    """The component a node of a recipe is: by its class_path, or by the class its place asks for."""
    if not isinstance(node, dict) or ("class_path" not in node and owner is None):
        return None
    values = {k: v for k, v in node.items() if k not in ("class_path", "init_args", "dict_kwargs")}
    values |= node.get("init_args") or {}
    if "class_path" in node:
        return Asked(import_class(node["class_path"], key), node["class_path"], key, values)
    return Asked(owner, f"{owner.__module__}.{owner.__qualname__}", key, values, named=False)


def _descend(here: Asked | None, node: Any, part: str, where: str) -> tuple[Any, Any]:
    """(value, annotation) one key further down."""
    if isinstance(node, list):
        if not part.isdigit() or int(part) >= len(node):
            raise RecipeError(f"{where}: a list with the indices 0 to {len(node) - 1}, not {part!r}.")
        return node[int(part)], UNKNOWN
    arguments = signature_of(here.target).arguments if here is not None else {}
    given = here.values if here is not None else node
    if part in given:
        return given[part], arguments[part].hint if part in arguments else UNKNOWN
    if part in arguments:
        return arguments[part].default, arguments[part].hint
    known = list(dict.fromkeys([*given, *arguments]))
    raise RecipeError(f"{where}: no such key.{nearest(part, known)} There: {', '.join(known)}.")


def contract_for(target: Any, path: str) -> Contract | None:
    """The contract a class keeps, by its bases, so that yours is known too; the nearest decides."""
    paths = [f"{base.__module__}.{base.__qualname__}" for base in getattr(target, "__mro__", [])]
    by_base = {_defined(contract.base): contract for contract in CONTRACTS}
    return next((by_base[name] for name in [path, *paths] if name in by_base), None)


def _defined(base: str) -> str:
    """Where a base class is defined, for those that are imported from elsewhere."""
    if not base.startswith("lightning."):
        return base
    found = import_class(base, "")
    return f"{found.__module__}.{found.__qualname__}"


def explained(asked: Asked, width: int = 100) -> Iterator[str]:
    """The lines of an explanation.

    Args:
        asked: what of.
        width: columns to write in.
    """
    signature = signature_of(asked.target)
    said = docstrings.of(asked.target, signature.arguments)
    if asked.argument:
        yield f"{asked.key}.{asked.argument}, an argument of {asked.path}"
        yield from _argument(asked.argument, signature, said, asked, width)
        return
    yield asked.path
    yield from textwrap.wrap(said.summary or "(no docstring)", width)
    yield ""
    yield from _facts(asked)
    yield ""
    yield "arguments" if signature.arguments else "arguments    none"
    for name in signature.arguments:
        yield from _argument(name, signature, said, asked, width)
    if signature.is_open:
        yield "  further ones, which its signature does not name"
    if said.raises:
        yield ""
        yield "raises"
        for name, when in said.raises:
            yield from _wrapped(f"{name}: {when}", "  ", "      ", width)
    snippet = in_yaml(asked, signature)
    if snippet:
        yield ""
        yield "in a recipe"
        yield textwrap.indent(to_yaml(snippet), "  ").rstrip()


def _facts(asked: Asked) -> Iterator[str]:
    contract = contract_for(asked.target, asked.path)
    if asked.key:
        yield f"key          {asked.key}"
    yield f"source       {_source(asked.target)}"
    if bases := list(_bases(asked.target)):
        yield f"bases        {', '.join(bases)}"
    if contract is not None:
        yield f"contract     {contract.name}: docstring of {contract.base}"
        yield f"called       {contract.when.replace('`', '')}"
        if contract.checker:
            yield f"check yours  ra3kit.testing.{contract.checker}"
    if inspect.isabstract(asked.target):
        yield f"abstract     you write {', '.join(sorted(asked.target.__abstractmethods__))}"


def _bases(target: Any) -> Iterator[str]:
    """Names of the bases, up to the first that comes from Lightning or torch."""
    for base in getattr(target, "__mro__", [])[1:-1]:
        yield base.__name__
        if base.__module__.split(".")[0] in ("lightning", "pytorch_lightning", "torch"):
            return


def _source(target: Any) -> str:
    """File and line, relative to the working directory where it is below it."""
    try:
        file, (_, line) = inspect.getsourcefile(target), inspect.getsourcelines(target)
    except (TypeError, OSError):
        return f"{target.__module__} (no source at hand)"
    relative = os.path.relpath(file or "")
    return f"{file if relative.startswith('..') else relative}, line {line}"


def _argument(name: str, signature: Signature, said: docstrings.Docstring, asked: Asked, width: int) -> Iterator[str]:
    argument = signature.arguments.get(name, Argument(UNKNOWN, inspect.Parameter.empty))
    kind = "any" if argument.hint is UNKNOWN else spell(argument.hint)
    default = "required" if argument.default is inspect.Parameter.empty else f"default {_spelled(argument.default)}"
    here = f"; here {_spelled(asked.values[name])}" if name in asked.values else ""
    yield from _wrapped(f"{name}  ({kind}; {default}{here})", "  ", "      ", width)
    yield from _wrapped(said.arguments.get(name, "(not described)"), "      ", "      ", width)


def _wrapped(text: str, first: str, further: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=further, break_on_hyphens=False)


def _spelled(value: Any) -> str:
    """A value as YAML has it, in one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict) and value:
        return str(value.get("class_path", "set"))
    if isinstance(value, list) and value:
        return ", ".join(map(_spelled, value))
    text = str(value.name if isinstance(value, Enum) else value)
    return repr(text) if text == "" else text if len(text) <= 60 else text[:57] + "..."


def in_yaml(asked: Asked, signature: Signature) -> dict[str, Any]:
    """The piece of a recipe that names the component: with the recipe's values, or with every default.

    Empty where no recipe names such a component. Arguments without a default are `???`, which a recipe asks for.
    """
    contract = contract_for(asked.target, asked.path)
    key = asked.key or (contract.key if contract is not None else "")
    if not key or inspect.isabstract(asked.target):
        return {}
    values = dict(asked.values)
    if not asked.key:
        defaults = {name: _plain(argument.default) for name, argument in signature.arguments.items()}
        values = {name: value for name, value in defaults.items() if value is not _NO_YAML}
    component: Any = ({"class_path": asked.path} if asked.named else {}) | values
    parts = key.split(".")
    if parts[-1] == "callbacks":
        component = [component]
    elif parts[-1].isdigit():  # an item of a list
        parts, component = parts[:-1], [component]
    for part in reversed(parts):
        component = {part: component}
    return component


_NO_YAML = object()


def _plain(default: Any) -> Any:
    """A default as YAML can hold it; _NO_YAML for an object, which leaving out keeps."""
    if default is inspect.Parameter.empty:
        return REQUIRED
    if isinstance(default, Enum):
        return default.name
    if isinstance(default, tuple | list):
        return [_plain(item) for item in default]
    return default if default is None or isinstance(default, bool | int | float | str | dict) else _NO_YAML
