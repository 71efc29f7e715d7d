"""Recipes that are damaged, hostile or wrong: one line that says which key or line, the value, and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ra3kit.cli import main

PARTS = "model: {class_path: a.B}\ndata: {class_path: a.D}\n"
TOUCH = "{class_path: subprocess.Popen, args: [touch, PWNED]}"
SYSTEM = "{class_path: os.system, command: touch PWNED}"


def with_value(value: str) -> str:
    return f"model: {{class_path: a.B, x: {value}}}\ndata: {{class_path: a.D}}\n"


FILES: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", ["x.yaml", "'model' is missing", "class_path"]),
    "a list": ("- a\n- b\n", ["x.yaml", "a list", "Sections: vars, run, model, data, trainer"]),
    "a number": ("5\n", ["x.yaml", "int"]),
    "a text": ("hello\n", ["no such section 'hello'"]),
    "unknown section": ("modle: {}\n" + PARTS, ["'modle'", "Did you mean 'model'?"]),
    "section is a list": ("run: [a]\n" + PARTS, ["'run'", "['a']", "keys and values"]),
    "tabs": ("model:\n\tclass_path: a.B\n", ["line 2, column 1", "spaces, not tabs"]),
    "duplicate key": ("model: {class_path: a.B, class_path: a.C}\n", ["line 1, column 26", "duplicate key class_path"]),
    "duplicate section": (PARTS + "model: {class_path: a.B}\n", ["line 3", "duplicate key model"]),
    "not closed": ("model: {class_path: a.B\n", ["line 2"]),
    "two documents": ("model: {class_path: a.B}\n---\ndata: {class_path: a.D}\n", ["line 2", "another document"]),
    "UTF-16": (PARTS.encode("utf-16"), ["x.yaml", "Save it as UTF-8"]),
    "not UTF-8": (b"model: {class_path: \xff\xfe}\n", ["position 20", "Save it as UTF-8"]),
    "NUL": (with_value("a\0b"), ["#x0000", "character 29"]),
    "lone surrogate": (with_value('"\\ud800"'), ["line 1, column 32"]),
    "5000 digits": (with_value("9" * 5000), ["x.yaml", "digits"]),
    "1000 lists deep": (with_value("[" * 1000 + "]" * 1000), ["x.yaml", "nested too deeply"]),
    "1000 mappings deep": (with_value("{a: " * 1000 + "1" + "}" * 1000), ["x.yaml", "nested too deeply"]),
    "an alias of itself": ("model: &a {class_path: a.B, x: *a}\ndata: {class_path: a.D}\n", ["recursive"]),
    "a bomb of aliases": (
        "vars:\n  a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"  {c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True))
        + PARTS,
        ["x.yaml", "limit"],
    ),
    "merge of a number": ("model: {<<: 5, class_path: a.B}\n", ["line 1, column 13", "merging"]),
    "key is a list": ("model: {class_path: a.B, ? [a, b] : 2}\n", ["line 1", "unhashable key"]),
    "key is null": ("model: {class_path: a.B, ~: 2}\n", ["model", "NoneType"]),
    "a set": (with_value("!!set {a, b}"), ["model.x", "set"]),
    "an unknown tag": (with_value("!foo 3"), ["line 1, column 29", "'!foo'"]),
    "a call in a tag": (
        with_value("!!python/object/apply:os.system ['touch PWNED']"),
        ["python/object/apply", "class_path"],
    ),
    "a name in a tag": (with_value("!!python/name:os.system "), ["python/name", "class_path"]),
    "half an interpolation": (with_value("'${'"), ["model.x", "${"]),
    "unknown resolver": (with_value("'${foo:1}'"), ["model.x", "foo"]),
    "interpolates itself": (with_value("'${model.x}'"), ["model.x", "Recursive"]),
    "points at nothing": (with_value("'${vars.sed}'"), ["model.x", "${vars.sed}", "points at nothing"]),
    "init_args is a number": (
        "model: {class_path: a.B, init_args: 5}\n" + PARTS[25:],
        ["model.init_args=5", "mapping"],
    ),
    "init_args is a list": ("model: {class_path: a.B, init_args: [a]}\n" + PARTS[25:], ["model.init_args=['a']"]),
    "dict_kwargs is a number": ("model: {class_path: a.B, dict_kwargs: 5}\n" + PARTS[25:], ["model.dict_kwargs=5"]),
    "seed is a text": ("run: {seed: abc}\n" + PARTS, ["run.seed='abc'", "whole number from 0"]),
    "seed has 30 digits": (f"run: {{seed: {'9' * 30}}}\n" + PARTS, ["run.seed=", "4294967295"]),
    "name with NUL": ('run: {name: "a\\0b"}\n' + PARTS, ["run.name='a\\x00b'", "printable"]),
    "name too long": (f"run: {{name: {'n' * 300}}}\n" + PARTS, ["run.name=", "at most 200"]),
    "name is blank": ("run: {name: ' '}\n" + PARTS, ["run.name=' '", "non-empty"]),
    "name climbs out": ("run: {name: ../../x}\n" + PARTS, ["run.name='../../x'", "run.dir"]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_recipe(refused, desk: Path, name: str) -> None:
    content, words = FILES[name]
    (desk / "x.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refused("show", "x.yaml")
    assert all(word in message for word in words), message
    assert not (desk / "PWNED").exists()


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "x.yaml").write_bytes(b"\xef\xbb\xbf" + (desk / "ntp.yaml").read_bytes().replace(b"\n", b"\r\n"))
    assert main(["show", "x.yaml"]) == 0
    shown = capsys.readouterr().out
    assert main(["show", "ntp.yaml"]) == 0
    assert shown.replace("x", "") == capsys.readouterr().out.replace("ntp", "", 2).replace("x", "")


NAMES: dict[str, tuple[str, list[str]]] = {
    "nothing of that name": ("tiny-ra", ["'tiny-ra'", "Did you mean 'tiny-ra3'?"]),
    "no such file": ("no.yaml", ["'no.yaml'", "looked in"]),
    "a folder": ("code", ["'code' is a folder"]),
    "a name no file can have": ("n" * 5000, ["File name too long"]),
    "somebody's home": ("~nobody-of-that-name/x.yaml", ["home"]),
    "empty": ("", ["No recipe ''"]),
    "a device": ("/dev/null", ["'/dev/null'"]),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_that_is_not_there(refused, name: str) -> None:
    argument, words = NAMES[name]
    message = refused("fit", "--recipe", argument)
    assert all(word in message for word in words), message
    assert len(message) < 600


MODULES = {
    "boom.py": "raise RuntimeError('boom')\n",
    "leaves.py": "import sys\nsys.exit(3)\n",
    "halves.py": "def f(:\n",
    "zeros.py": "x = 1\0\n",
}
OVERRIDES: dict[str, tuple[str, list[str]]] = {
    "class_path is null": ("model.class_path=null", ["model.class_path=None", "package.module.Class"]),
    "class_path is a number": ("model.class_path=5", ["model.class_path=5"]),
    "class_path is dots": ("model.class_path='..'", ["model.class_path='..'", "dotted path"]),
    "class_path is relative": ("model.class_path=.a.B", ["'.a.B'", "dotted path"]),
    "no such module": ("model.class_path=ra3kit.polcy.BasePolicy", ["no module 'polcy'", "Did you mean 'policy'?"]),
    "no such class": ("model.class_path=ra3kit.policy.BasePolcy", ["'BasePolcy'", "Did you mean 'BasePolicy'?"]),
    "another base": (
        "model.class_path=ra3kit.data.module.TrajectoryDataModule",
        ["model must be a LightningModule", "this is none"],
    ),
    "a function": ("model.class_path=ra3kit.policy.score", ["model must be a LightningModule"]),
    "os.system": (f"model={SYSTEM}", ["model.class_path=os.system", "LightningModule"]),
    "os.system for a tokenizer": (f"model.tokenizer={SYSTEM}", ["model.tokenizer must be a str or TokenizerSpec"]),
    "Popen for a dataclass": (f"model.optimization={TOUCH}", ["model.optimization must be a Optimization"]),
    "Popen for a config": (f"model.config={TOUCH}", ["config=", "model_type"]),
    "Popen inside a config": (f"model.config.vocab_size=[{TOUCH}]", ["config.vocab_size="]),
    "Popen for a path": (f"data.path={TOUCH}", ["data.path", "allowed is str or list[str]"]),
    "Popen in a list of texts": (f"data.columns=[{TOUCH}]", ["data.columns.0", "allowed is str"]),
    "Popen for a number": (f"data.seed={TOUCH}", ["data.seed", "allowed is int"]),
    "Popen for a callback": (f"trainer.callbacks=[{TOUCH}]", ["trainer.callbacks.0 must be a Callback"]),
    "a model for a callback": (
        "trainer.callbacks=[{class_path: ra3kit.policy.BasePolicy}]",
        ["trainer.callbacks.0.class_path=ra3kit.policy.BasePolicy"],
    ),
    "Popen for a logger": (f"trainer.logger={TOUCH}", ["trainer.logger must be a Logger"]),
    "import raises": ("model.class_path=boom.A", ["importing boom failed: RuntimeError: boom"]),
    "import exits": ("model.class_path=leaves.A", ["importing leaves failed: SystemExit: 3"]),
    "import does not parse": ("model.class_path=halves.A", ["importing halves failed: SyntaxError", "line 1"]),
    "import holds NUL": ("model.class_path=zeros.A", ["importing zeros failed: SyntaxError"]),
    "unknown argument in dict_kwargs": ("model.dict_kwargs={a: 1}", ["model.a", "BasePolicy has no argument 'a'"]),
    "unknown key, deep": ("model.optimization.lrr=1", ["model.optimization.lrr", "Did you mean 'lr'?"]),
    "unknown key of a model config": (
        "model.config.hiden_size=64",
        ["config.hiden_size", "Did you mean 'hidden_size'?"],
    ),
    "attention of a model config": ("model.config.attn_implementation=eager", ["config.attn_implementation"]),
    "wrong type, deep": ("model.optimization.lr=fast", ["model.optimization.lr='fast'", "float"]),
    "true for a number": ("data.max_tokens=true", ["data.max_tokens=True", "int"]),
    "null for a number": ("data.max_tokens=null", ["data.max_tokens=null", "int"]),
    "infinite for a whole number": ("data.max_tokens=1e400", ["data.max_tokens=inf", "int"]),
    "one number for two": ("model.optimization.betas=[0.9]", ["model.optimization.betas=[0.9]", "tuple[float, float]"]),
    "choice": ("data.comments=stripp", ["data.comments='stripp'", "Did you mean 'strip'?"]),
    "devices": ("trainer.devices=abc", ["trainer:", "devices"]),
    "accelerator": ("trainer.accelerator=gppu", ["trainer:", "accelerator='gppu'", "cpu"]),
    "strategy": ("trainer.strategy=dpp", ["trainer:", "strategy='dpp'"]),
    "a value that is no YAML": ("data.path=[a", ["data.path", "'[a'", "quotes"]),
    "a value nested 2000 deep": ("data.path=" + "[" * 2000, ["data.path", "quotes"]),
    "a value of 5000 digits": ("data.seed=" + "9" * 5000, ["data.seed", "digits"]),
    "a value with a tag": ("data.path=!!python/object/apply:os.system ['touch PWNED']", ["data.path", "quotes"]),
    "run.dir with NUL": ('run.dir="a\\0b"', ["run.dir='a\\x00b'", "printable"]),
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_value_that_cannot_be(refused, desk: Path, name: str) -> None:
    override, words = OVERRIDES[name]
    for file, text in MODULES.items():
        (desk / file).write_text(text)
    message = refused("fit", "--recipe", "ntp.yaml", override)
    assert all(word in message for word in words), message
    assert not (desk / "PWNED").exists()
