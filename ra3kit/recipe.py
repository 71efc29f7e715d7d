"""Recipes: from a YAML file and `key=value` overrides to one resolved, checked tree, and from that tree to objects.

A recipe is flat: a component is `class_path: dotted.Class` with its arguments as sibling keys (an explicit `init_args`
mapping is accepted too). The order is fixed: load, override, resolve every `${...}` once, check against the signatures,
build. Nothing here imports torch before `check` or `build` is called.

Sections of a recipe:
    vars     values shared by interpolation (`${vars.seed}`); they build nothing themselves
    run      `seed` (int), `name` (default: the recipe's), `dir` (default: a new numbered folder under `runs/<name>`)
    model    the LightningModule to train
    data     the LightningDataModule that feeds it
    trainer  arguments of `lightning.pytorch.Trainer`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ra3kit.errors import RecipeError, nearest
from ra3kit.overrides import COMPONENT_KEYS, RUN_DEFAULTS, SECTIONS, has, parse_override, set_value

if TYPE_CHECKING:
    import yaml

SUFFIXES = (".yaml", ".yml")
MAX_NAME = 200
"""Characters of a part of a run's name: file systems end at 255 bytes."""


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe.

    Args:
        name: what the run is called; the recipe's own name unless `run.name` says otherwise.
        path: the file it was read from.
        tree: the flat, resolved tree with every section but `vars` (their values are in place).
        touched: the dotted keys that overrides have set.
        added: those of them that the file does not have, or that swap a class.
    """

    name: str
    path: Path
    tree: dict[str, Any]
    touched: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


# --- finding ---------------------------------------------------------------------------------------------------------


def shipped() -> dict[str, Path]:
    """The recipes that come with the package: name (path below `recipes/` without its suffix) -> file."""
    root = Path(str(resources.files("ra3kit") / "recipes"))
    found = (path for path in sorted(root.rglob("*")) if path.suffix in SUFFIXES)
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in found}


def find(name_or_file: str) -> Path:
    """The file of a recipe given by name (as `ra3kit ls` lists it) or by path.

    Raises:
        RecipeError: there is no such recipe or file.
    """
    names = shipped()
    if name_or_file in names:
        return names[name_or_file]
    path = Path(name_or_file)
    try:
        path = path.expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # a name no file can have, or ~someone
        why = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise RecipeError(f"No recipe {name_or_file[:80]!r}: {why}.") from error
    if name_or_file and path.is_dir():
        raise RecipeError(f"{name_or_file!r} is a folder. Name the .yaml file in it.")
    if path.suffix in SUFFIXES:
        raise RecipeError(f"No recipe file {name_or_file!r} (looked in {path.absolute().parent}).")
    raise RecipeError(
        f"No recipe {name_or_file!r}.{nearest(name_or_file, names)} `ra3kit ls` lists the {len(names)} that there are. "
        "A recipe of your own is given by its path, with .yaml at the end."
    )


def describe(path: Path) -> str:
    """The one-line description of a recipe: its first line, `# ...`; empty when it has none."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("#").strip() if first.startswith("#") else ""


# --- loading and overriding ------------------------------------------------------------------------------------------


def load(name_or_file: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `key=value` overrides left to right, and resolve every interpolation once.

    Raises:
        RecipeError: unknown recipe, malformed YAML, unknown section, an override that fits nowhere, an interpolation
            that points at nothing.
    """
    path = find(name_or_file)
    tree = _read(path)
    _check_sections(tree, str(path))
    tree["run"] = {**RUN_DEFAULTS, **(tree.get("run") or {})}
    tree["trainer"] = tree.get("trainer") or {}
    _check_names(tree["run"], RUN_DEFAULTS, "run.")
    touched, added = [], []
    for item in overrides:
        key, value = parse_override(item)
        if key.endswith(".class_path") or not has(tree, key):
            added.append(key)
        set_value(tree, key, value)
        touched.append(key)
    tree = resolve(tree)
    _check_run(tree["run"])
    name = tree["run"]["name"] or next((n for n, file in shipped().items() if file == path), path.stem)
    normalise(tree)  # a component that cannot be normalised is an error here already, not only when it is built
    return Recipe(
        name, path, {key: tree[key] for key in SECTIONS if key in tree and key != "vars"}, tuple(touched), tuple(added)
    )


def _read(path: Path) -> dict[str, Any]:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        problem = str(error.problem or error).rstrip(".")
        raise RecipeError(f"{where}: {problem}. {_hint(error, path)}".rstrip()) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not a recipe: {error}. Save it as UTF-8.") from error
    except RecursionError as error:
        raise RecipeError(f"{path} is not a recipe: it is nested too deeply.") from error
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        raise RecipeError(f"{path} is not a recipe: {in_one_line(error)}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} is not a recipe: it holds a list, not sections. Sections: {', '.join(SECTIONS)}.")
    return {str(key): value for key, value in tree.items()}


def _hint(error: yaml.MarkedYAMLError, path: Path) -> str:
    mark, problem = error.problem_mark, str(error.problem)
    if "cannot start any token" in problem and mark is not None:
        line = path.read_text(encoding="utf-8-sig").split("\n")[mark.line]
        return "Indent with spaces, not tabs." if "\t" in line else "Put the value in quotes."
    if "mapping values are not allowed" in problem:
        return "A value that holds ': ' needs quotes."
    if "could not determine a constructor" in problem:
        return "Tags build no objects here: name a class with class_path."
    return ""


def in_one_line(error: Exception) -> str:
    """An error's first line, the key it is about where OmegaConf names one, and the place where YAML's reader does."""
    key, place = getattr(error, "full_key", None), getattr(error, "position", None)
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return (f"{key}: " if key else "") + first + (f" (character {place})" if place is not None else "")


def _check_sections(tree: Mapping[str, Any], where: str) -> None:
    for key, value in tree.items():
        if key not in SECTIONS:
            raise RecipeError(
                f"{where}: no such section {key!r}.{nearest(str(key), SECTIONS)} Sections: {', '.join(SECTIONS)}."
            )
        if not isinstance(value, dict) and value is not None:
            raise RecipeError(f"{where}: section {key!r} holds {value!r}; it needs keys and values.")
    for key in ("model", "data"):
        if not tree.get(key):
            raise RecipeError(f"{where}: section {key!r} is missing: give it a class_path.")


def _check_names(given: Mapping[str, Any], allowed: Mapping[str, Any], prefix: str) -> None:
    for key in given:
        if key not in allowed:
            raise RecipeError(f"No such key {prefix}{key}.{nearest(str(key), allowed)} Allowed: {', '.join(allowed)}.")


def _check_run(run: Mapping[str, Any]) -> None:
    seed = run["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise RecipeError(f"run.seed={seed!r}: allowed is a whole number from 0 to {2**32 - 1}.")
    for key in ("name", "dir"):
        if run[key] is not None and (not isinstance(run[key], str) or not run[key].strip()):
            raise RecipeError(f"run.{key}={run[key]!r}: allowed is a non-empty text or null.")
        parts = Path(run[key] or "").parts
        if any(len(part) > MAX_NAME or not part.isprintable() for part in parts):
            raise RecipeError(f"run.{key}={run[key]!r}: a folder's name has at most {MAX_NAME} printable characters.")
    if run["name"] and (Path(run["name"]).is_absolute() or ".." in Path(run["name"]).parts):
        raise RecipeError(f"run.name={run['name']!r}: a name below runs/ is allowed; for another place set run.dir.")


# --- resolving and normalising ---------------------------------------------------------------------------------------


def resolve(tree: dict[str, Any]) -> dict[str, Any]:
    """Replace every `${...}` by what it points at, once, at the root.

    Raises:
        RecipeError: an interpolation points at nothing or in a circle, or a mandatory value (`???`) is not given.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise RecipeError(f"{error.full_key}: this recipe asks for a value: {error.full_key}=...") from error
    except InterpolationKeyError as error:
        wanted = str(error.msg or error).split("'")[1] if "'" in str(error) else ""
        close = nearest(wanted, [key for key, _ in leaves(tree)])
        raise RecipeError(f"{error.full_key}: ${{{wanted}}} points at nothing in this recipe.{close}") from error
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        key = getattr(error, "full_key", None)
        raise RecipeError(f"{key or 'recipe'}: cannot be resolved: {str(error).splitlines()[0]}") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a tree that is neither a mapping nor a list, with its dotted key.

    >>> list(leaves({"a": {"b": 1}, "c": [2]}))
    [('a.b', 1), ('c.0', 2)]
    """
    items: Any = ()
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    else:
        yield prefix, node
    for key, value in items:
        yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))


def normalise(node: Any, key: str = "") -> Any:
    """Every component as `{class_path, init_args}`: the form that Lightning's command line takes.

    >>> normalise({"class_path": "pkg.A", "x": 1, "inner": {"class_path": "pkg.B"}})
    {'class_path': 'pkg.A', 'init_args': {'x': 1, 'inner': {'class_path': 'pkg.B'}}}

    Raises:
        RecipeError: an argument stands both beside `class_path` and under `init_args`, or `init_args` is no mapping.
    """
    if isinstance(node, list):
        return [normalise(item, f"{key}.{index}") for index, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    inside = {name: normalise(item, f"{key}.{name}" if key else str(name)) for name, item in node.items()}
    if "class_path" not in inside:
        return inside
    for name in ("init_args", "dict_kwargs"):
        if not isinstance(inside.get(name) or {}, dict):
            raise RecipeError(f"{key}.{name}={inside[name]!r}: a mapping of arguments is needed.")
    siblings = {name: item for name, item in inside.items() if name not in COMPONENT_KEYS}
    explicit = inside.get("init_args") or {}
    if both := sorted(set(siblings) & set(explicit)):
        raise RecipeError(f"{key}.{both[0]} is given twice: beside class_path and under init_args. Keep one.")
    component = {"class_path": inside["class_path"]}
    if arguments := {**siblings, **explicit}:
        component["init_args"] = arguments
    return component | ({"dict_kwargs": inside["dict_kwargs"]} if "dict_kwargs" in inside else {})


def flatten(node: Any) -> Any:
    """The reverse of `normalise`: arguments beside their `class_path`, as recipes are written.

    >>> flatten({"class_path": "pkg.A", "init_args": {"x": 1}})
    {'class_path': 'pkg.A', 'x': 1}
    """
    if isinstance(node, list):
        return [flatten(item) for item in node]
    if not isinstance(node, dict):
        return node
    inside = {name: flatten(item) for name, item in node.items()}
    arguments = inside.get("init_args")
    if "class_path" not in inside or not isinstance(arguments, dict) or set(arguments) & set(COMPONENT_KEYS):
        return inside
    return {name: item for name, item in inside.items() if name != "init_args"} | arguments


def to_yaml(tree: Mapping[str, Any]) -> str:
    """A tree as YAML in the order of its keys, readable by `load` without change of any value."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(tree)))
