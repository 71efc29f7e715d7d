"""Overrides: `key=value` on the command line, put into a recipe before anything in it is resolved."""

from __future__ import annotations

from typing import Any

from ra3kit.errors import RecipeError, nearest

SECTIONS = ("vars", "run", "model", "data", "trainer")
RUN_DEFAULTS: dict[str, Any] = {"name": None, "dir": None, "seed": 0}
COMPONENT_KEYS = ("class_path", "init_args", "dict_kwargs")


def parse_override(item: str) -> tuple[str, Any]:
    """Split `key=value` and read the value as YAML.

    >>> parse_override("trainer.devices=[0, 1]")
    ('trainer.devices', [0, 1])
    >>> parse_override("model.lr=1e-4"), parse_override("data.path=null")
    (('model.lr', 0.0001), ('data.path', None))
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, text = item.partition("=")
    key = key.strip()
    if key.startswith("-"):
        raise RecipeError(f"{item!r}: overrides are written without dashes: {item.lstrip('-')}")
    if not equals or not key or not all(key.split(".")):
        raise RecipeError(f"{item!r} is not an override. Write key=value, for example data.max_tokens=256.")
    if not text.strip():
        raise RecipeError(f"{item!r} has no value. Write {key}=null for none, {key}=\"''\" for an empty text.")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, ValueError) as error:
        problem = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        shown = repr(text) if len(text) <= 80 else f"{text[:80]!r}..."
        raise RecipeError(f"{key}: the value {shown} is not YAML ({problem}); put it in quotes.") from error
    assert isinstance(value, dict)
    return key, value["value"]


def set_value(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one dotted key in a flat recipe tree, in place.

    A key below a component addresses its arguments, whether they are written as siblings or under `init_args`; an item
    of a list is addressed by its index. A mapping given as the value replaces what stood there.

    Raises:
        RecipeError: the first key is no section, `vars` or `run` have no such key, an index is out of range, or the
            way leads through a plain value.
    """
    parts = dotted.split(".")
    if parts[0] not in SECTIONS:
        close = nearest(parts[0], SECTIONS)
        raise RecipeError(f"{dotted}: no such section {parts[0]!r}.{close} Sections: {', '.join(SECTIONS)}.")
    if parts[0] in ("vars", "run") and len(parts) > 1:
        known = tree.get(parts[0]) or {}
        if parts[1] not in known:
            have = ", ".join(known) or "none; this recipe has no vars"
            raise RecipeError(f"{dotted}: no such key.{nearest(parts[1], known)} Allowed in {parts[0]}: {have}.")
    if len(parts) == 1:
        if not isinstance(value, dict):
            raise RecipeError(f"{dotted}={value!r}: a section needs keys, for example {dotted}.{_example(parts[0])}.")
        tree[dotted] = {**RUN_DEFAULTS, **value} if dotted == "run" else value
        return
    node: Any = tree
    for depth, part in enumerate(parts[:-1]):
        node = _descend(node, part, ".".join(parts[:depth]), dotted)
    _assign(node, parts[-1], value, ".".join(parts[:-1]), dotted)


def has(tree: dict[str, Any], dotted: str) -> bool:
    """True when the recipe itself gives a value to this dotted key.

    >>> has({"data": {"class_path": "a.B", "init_args": {"x": [1]}}}, "data.x.0"), has({"data": {}}, "data.y")
    (True, False)
    """
    node: Any = tree
    for part in dotted.split("."):
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in _arguments(node, part):
            node = _arguments(node, part)[part]
        else:
            return False
    return True


def _example(section: str) -> str:
    return {"run": "seed=1", "trainer": "max_steps=10", "vars": "seed=1"}.get(
        section, "class_path=package.module.Class"
    )


def _arguments(node: dict[str, Any], key: str) -> dict[str, Any]:
    """Where `key` lives at a mapping: in `init_args` when the component spells them out, else beside `class_path`."""
    explicit = isinstance(node.get("init_args"), dict) and key not in COMPONENT_KEYS
    return node["init_args"] if explicit else node


def _descend(node: Any, part: str, here: str, dotted: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, here, dotted)]
    if not isinstance(node, dict):
        _through_a_value(node, here, dotted)
    owner = _arguments(node, part)
    if owner.get(part) is None:
        owner[part] = {}  # the check against the signatures says whether such a key exists
    return owner[part]


def _assign(node: Any, part: str, value: Any, here: str, dotted: str) -> None:
    if isinstance(node, list):
        node[_index(node, part, here, dotted)] = value
    elif isinstance(node, dict):
        _arguments(node, part)[part] = value
    else:
        _through_a_value(node, here, dotted)


def _index(node: list[Any], part: str, here: str, dotted: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        allowed = f"0 to {len(node) - 1}" if node else "none, it is empty"
        raise RecipeError(f"{dotted}: {here} is a list; {part!r} is not one of its indices ({allowed}).")
    return int(part)


def _through_a_value(node: Any, here: str, dotted: str) -> None:
    if isinstance(node, str) and node.startswith("${"):
        raise RecipeError(f"{dotted}: {here} is {node}; override what it points at instead.")
    raise RecipeError(f"{dotted}: {here} holds the value {node!r}, which has no keys of its own.")
