"""What a class accepts, read from its signature: the one source of truth for a recipe's options.

`check` walks a resolved recipe and compares every key and value with the signatures, before anything is built. What it
cannot judge (an open `**kwargs`, an annotation that cannot be evaluated) is left to Lightning's own parser.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import os
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from ra3kit.errors import RecipeError, nearest
from ra3kit.overrides import COMPONENT_KEYS

UNKNOWN = object()
"""The annotation of an argument that has none, or one that cannot be evaluated."""


@dataclass(frozen=True)
class Argument:
    """One argument of a signature: its annotation (or UNKNOWN), and its default (or inspect.Parameter.empty)."""

    hint: Any
    default: Any


@dataclass(frozen=True)
class Signature:
    """The keyword arguments of a class or factory; `is_open` when further ones may be accepted through `**kwargs`."""

    arguments: dict[str, Argument]
    is_open: bool


def import_class(class_path: Any, key: str) -> Any:
    """The class (or factory function) a dotted path names; the working directory is searched first.

    Args:
        class_path: `package.module.Class`.
        key: the recipe key that holds the component, for the message; "" where no recipe is at hand.

    Raises:
        RecipeError: not a dotted path, no such module, no such name in it, or the module cannot be imported.
    """
    where = f"{key}.class_path={class_path}" if key else str(class_path)
    if not isinstance(class_path, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", class_path):
        given = f"{key}.class_path={class_path!r}" if key else repr(class_path)
        raise RecipeError(f"{given}: a dotted path is needed, like package.module.Class.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    parts = class_path.split(".")
    for length in range(len(parts) - 1, 0, -1):  # nested classes: try the longest module name first
        name = ".".join(parts[:length])
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                continue
            raise RecipeError(f"{where}: importing {name} needs {error.name!r}.") from error
        except (Exception, SystemExit) as error:  # whatever somebody's module does when it is imported
            what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}".rstrip(": ")
            raise RecipeError(f"{where}: importing {name} failed: {what}") from error
        target: Any = module
        for depth, part in enumerate(parts[length:]):
            if not hasattr(target, part):
                raise RecipeError(_no_such_name(target, ".".join(parts[: length + depth]), part, where, class_path))
            target = getattr(target, part)
        if not callable(target):
            raise RecipeError(f"{where}: this is no class but {type(target).__name__}.")
        return target
    close = nearest(parts[0], _modules_in([os.getcwd()]))
    raise RecipeError(f"{where}: there is no module {parts[0]!r}.{close} Is it installed, or in {os.getcwd()}?")


def _no_such_name(owner: Any, owner_name: str, part: str, where: str, class_path: str) -> str:
    """The message for a name that a module or package does not have: what is there, and the closest."""
    kind, there = "class", [n for n, item in vars(owner).items() if inspect.isclass(item) and not n.startswith("_")]
    if inspect.ismodule(owner):
        own = [n for n in there if vars(owner)[n].__module__.startswith(owner.__name__)]
        there = own or there
        if class_path.rpartition(".")[0] != owner_name:  # the name was meant to be a module
            kind, there = "module", _modules_in(list(getattr(owner, "__path__", [])))
    close, have = nearest(part, there), ", ".join(sorted(there)) or "none"
    return f"{where}: {owner_name} has no {kind} {part!r}.{close} There: {have}."


def _modules_in(folders: Sequence[str]) -> list[str]:
    """The names of the public modules and packages in some folders."""
    return sorted(item.name for item in pkgutil.iter_modules(folders) if not item.name.startswith("_"))


def signature_of(target: Callable[..., Any]) -> Signature:
    """The keyword arguments `target` takes. A `**kwargs` of a class is followed through its bases."""
    if not inspect.isclass(target):
        return _merge([target])
    constructors = [vars(base)["__init__"] for base in inspect.getmro(target) if "__init__" in vars(base)]
    made_by_new = constructors == [object.__init__] and target.__new__ is not object.__new__
    return Signature({}, is_open=True) if made_by_new else _merge(constructors)


def _merge(functions: Sequence[Any]) -> Signature:
    arguments: dict[str, Argument] = {}
    for function in functions:
        if function is object.__init__:
            return Signature(arguments, is_open=False)
        if isinstance(function, types.WrapperDescriptorType):  # a constructor written in C says nothing
            return Signature(arguments, is_open=True)
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:  # a builtin without a text signature
            return Signature(arguments, is_open=True)
        try:
            hints = typing.get_type_hints(function)
        except (NameError, TypeError, AttributeError):  # names imported for type checking only
            hints = {}
        takes_more = False
        for index, parameter in enumerate(parameters):
            takes_more |= parameter.kind is inspect.Parameter.VAR_KEYWORD
            is_self = index == 0 and parameter.name == "self"
            variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
            if not is_self and parameter.kind not in (*variadic, inspect.Parameter.POSITIONAL_ONLY):
                hint = hints.get(parameter.name, UNKNOWN)
                arguments.setdefault(parameter.name, Argument(hint, parameter.default))
        if not takes_more:
            return Signature(arguments, is_open=False)
    return Signature(arguments, is_open=True)


# --- hints -----------------------------------------------------------------------------------------------------------


def members(hint: Any) -> list[Any]:
    """The alternatives of a union; a list of one for anything else.

    >>> members(int | None)
    [<class 'int'>, <class 'NoneType'>]
    """
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [inner for member in typing.get_args(hint) for inner in members(member)]
    return [hint]


def spell(hint: Any) -> str:
    """An annotation in words, for messages.

    >>> spell(Literal["sum", "mean"] | None), spell(int | list[int])
    ("'sum', 'mean' or null", 'int or list[int]')
    """
    words = []
    for member in members(hint):
        if typing.get_origin(member) is Literal:
            words.append(", ".join(repr(value) for value in typing.get_args(member)))
        elif member is type(None):
            words.append("null")
        elif inspect.isclass(member) and typing.get_origin(member) is None:
            choices = getattr(member, "__members__", None)
            words.append(", ".join(choices) if choices else member.__name__)
        else:
            words.append(str(member).replace("typing.", ""))
    return " or ".join(words)


def component_classes(hint: Any) -> list[type]:
    """The classes of an annotation that a component can be an instance of; empty when it is not about components."""
    plain = (bool, int, float, complex, str, bytes, list, tuple, dict, set, object, type(None))
    return [m for m in members(hint) if inspect.isclass(m) and typing.get_origin(m) is None and m not in plain]


def choices_of(hint: Any) -> list[str]:
    """The texts a closed choice allows: the values of its `Literal`s, the names of its enum members."""
    found: list[str] = []
    for member in members(hint):
        if typing.get_origin(member) is Literal:
            found.extend(value for value in typing.get_args(member) if isinstance(value, str))
        found.extend(getattr(member, "__members__", {}) if inspect.isclass(member) else ())
    return found


# --- checking --------------------------------------------------------------------------------------------------------


def check(tree: dict[str, Any], touched: Sequence[str] = (), only: Sequence[str] | None = None) -> None:
    """Compare a resolved, flat or normalised recipe with the signatures of the classes it names.

    Args:
        tree: with the sections `model`, `data`, `trainer`.
        touched: the dotted keys that overrides have set; a class swapped by one gets its own message.
        only: check just these sections; all by default.

    Raises:
        RecipeError: an unknown class, an unknown key, a missing argument, or a value of the wrong type or choice.
    """
    import lightning.pytorch as L

    sections = ("model", "data", "trainer") if only is None else only
    for section, base in (("model", L.LightningModule), ("data", L.LightningDataModule)):
        if section in sections:
            _check_value(tree[section], base, section, touched)
    if "trainer" in sections:
        _check_arguments(tree.get("trainer") or {}, L.Trainer, "trainer", touched)


def _check_value(value: Any, hint: Any, key: str, touched: Sequence[str]) -> None:
    """One value against the annotation of the argument it is given for."""
    wanted = component_classes(hint)
    if isinstance(value, dict) and "class_path" in value:
        if not _may_be_component(hint):
            raise RecipeError(f"{key}: a class_path stands here, but allowed is {spell(hint)}.")
        target = import_class(value["class_path"], key)
        partial = any("Callable" in str(member) for member in members(hint))
        if wanted and not partial and not _takes_mappings(hint) and not _makes(target, tuple(wanted)):
            raise RecipeError(f"{key}.class_path={value['class_path']}: {key} must be a {spell(hint)}, this is none.")
        _check_arguments(_arguments_of(value, key), target, key, touched, partial=partial)
    elif isinstance(value, dict) and len(wanted) == 1 and not _takes_mappings(hint):
        if inspect.isabstract(wanted[0]):
            raise RecipeError(f"{key} needs a class_path: {wanted[0].__name__} is abstract.")
        _check_arguments(_arguments_of(value, key), wanted[0], key, touched)
    elif _holds_components(value):
        inner = _item_hint(hint) if isinstance(value, list) else UNKNOWN
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_value(item, inner, f"{key}.{name}", touched)
    elif hint is not UNKNOWN:
        _check_plain(value, hint, key)


def _makes(target: Any, wanted: tuple[type, ...]) -> bool:
    """True for a subclass of one of the classes, and for a function whose annotation says that it returns one."""
    if not inspect.isclass(target):
        try:
            target = typing.get_type_hints(target).get("return")
        except (NameError, TypeError, AttributeError):  # a builtin, or names imported for type checking only
            return False
    return inspect.isclass(target) and issubclass(target, wanted)


def _may_be_component(hint: Any) -> bool:
    """False where only plain values are allowed: numbers, texts, and lists of them."""
    plain = (bool, int, float, complex, str, bytes, type(None))
    return not all(
        member in plain
        or typing.get_origin(member) is Literal
        or (typing.get_origin(member) in (list, tuple) and not any(map(_may_be_component, typing.get_args(member))))
        for member in members(hint)
    )


def _item_hint(hint: Any) -> Any:
    """The annotation of a list's items, where the annotation allows one kind of list only; else UNKNOWN."""
    lists = [m for m in members(hint) if typing.get_origin(m) in (list, Sequence, collections.abc.Iterable)]
    return typing.get_args(lists[0])[0] if len(lists) == 1 and typing.get_args(lists[0]) else UNKNOWN


def _arguments_of(component: dict[str, Any], key: str) -> dict[str, Any]:
    for name in ("init_args", "dict_kwargs"):
        if not isinstance(component.get(name) or {}, dict):
            raise RecipeError(f"{key}.{name}={component[name]!r}: a mapping of arguments is needed.")
    siblings = {name: value for name, value in component.items() if name not in COMPONENT_KEYS}
    return siblings | (component.get("init_args") or {}) | (component.get("dict_kwargs") or {})


def _takes_mappings(hint: Any) -> bool:
    return any("dict" in str(member) or "Mapping" in str(member) or member is Any for member in members(hint))


def _holds_components(value: Any) -> bool:
    if isinstance(value, dict):
        return "class_path" in value or any(_holds_components(item) for item in value.values())
    return isinstance(value, list) and any(_holds_components(item) for item in value)


def _check_arguments(
    given: dict[str, Any],
    target: Any,
    key: str,
    touched: Sequence[str],
    partial: bool = False,
) -> None:
    signature = signature_of(target)
    title = f"{target.__module__}.{target.__qualname__}"
    for name, value in given.items():
        if name in signature.arguments:
            argument = signature.arguments[name]
            if not (value is None and argument.default is None):
                _check_value(value, argument.hint, f"{key}.{name}", touched)
        elif not signature.is_open:
            raise RecipeError(_unknown_key(name, key, title, signature, touched, given))
    if partial or signature.is_open:
        return
    required = [n for n, a in signature.arguments.items() if a.default is inspect.Parameter.empty]
    if missing := [name for name in required if name not in given]:
        raise RecipeError(f"{key} ({title}) needs {', '.join(missing)}: set {key}.{missing[0]}=...")


def _unknown_key(
    name: str, key: str, title: str, signature: Signature, touched: Sequence[str], given: dict[str, Any]
) -> str:
    allowed = ", ".join(signature.arguments) or "nothing"
    asked_for = any(f"{item}.".startswith(f"{key}.{name}.") for item in touched)
    if f"{key}.class_path" in touched and not asked_for:
        kept = {n: v for n, v in given.items() if n in signature.arguments and not isinstance(v, dict | list)}
        words = "".join(f", {n}: {v}" for n, v in kept.items())
        return (
            f"{key}.class_path was swapped for {title}, which does not take {name!r}, set in the recipe for another "
            f"class. It takes: {allowed}. Replace the whole component: {key}='{{class_path: {title}{words}}}'"
        )
    close = nearest(name, signature.arguments)
    return f"{key}.{name}: {title} has no argument {name!r}.{close} It takes: {allowed}."


def _check_plain(value: Any, hint: Any, key: str) -> None:
    """A value without components against an annotation, by jsonargparse's rules."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
    except ValueError:  # an annotation the parser does not know; building decides
        return
    fits = value is not None or any(member in (type(None), Any, object) for member in members(hint))
    if fits:
        try:
            parser.parse_object({"value": value})
        except (ArgumentError, TypeError):
            fits = False
    if not fits:
        close = nearest(value, choices_of(hint)) if isinstance(value, str) else ""
        shown = "null" if value is None else repr(value)
        raise RecipeError(f"{key}={shown}: allowed is {spell(hint)}.{close}")
