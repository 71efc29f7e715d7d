"""`check_tokenizer_spec`, `check_decontaminator`, `check_data_module`: sound ones pass, each clause can be broken."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clauses import assert_all_shown, assert_breaks
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from ra3kit.data.module import TrajectoryDataModule
from ra3kit.data.tokenizer import TokenizerSpec, TrainedTokenizer, train_byte_level_bpe
from ra3kit.testing import check_data_module, check_decontaminator, check_tokenizer_spec
from ra3kit.testing.conformance.world import tiny_corpus
from ra3kit.testing.models import CORPUS, tiny_tokenizer

# ---- tokenizer ------------------------------------------------------------------------------------------------------


class Tiny(TokenizerSpec):
    """Sound; the broken ones below differ in one place."""

    def load(self) -> Any:
        return tiny_tokenizer()


class NoSpec:
    def load(self) -> Any:
        return tiny_tokenizer()


class Backend(TokenizerSpec):
    def load(self) -> Any:
        return tiny_tokenizer().backend_tokenizer


class FreshEachTime(TokenizerSpec):
    def load(self) -> Any:
        return train_byte_level_bpe([CORPUS], 300)


class Changed(TokenizerSpec):
    """A tokenizer of its own, changed once."""

    made: Any = None

    def load(self) -> Any:
        if self.made is None:
            self.made = self.change(train_byte_level_bpe([CORPUS], 300))
        return self.made

    def change(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        raise NotImplementedError


class Endless(Changed):
    def change(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        tokenizer.eos_token = None
        return tokenizer


class Normalises(Changed):
    def change(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\r", "\n")
        return tokenizer


class LosesFormFeeds(Changed):  # only where the probe of check_tokenizer has none
    def change(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\x85", " ")
        return tokenizer


class EverySpelling(Changed):
    """Its text spells of specials are specials: it is no fast tokenizer whose backend could be told not to."""

    def change(self, tokenizer: PreTrainedTokenizerFast) -> Any:
        return Slow(tokenizer)


class Slow:
    """Not seen as a fast one, and deaf to split_special_tokens."""

    def __init__(self, inner: PreTrainedTokenizerFast):
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def __call__(self, texts: Any, **_: Any) -> Any:
        return self.inner(texts, add_special_tokens=False)

    @property
    def __class__(self) -> Any:  # passes for a tokenizer of the slow kind
        from transformers import PreTrainedTokenizerBase

        return PreTrainedTokenizerBase


class Hashless(Changed):
    """No token but "#" itself begins with "#", and that one is a special token."""

    def change(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        tokenizer.add_special_tokens({"additional_special_tokens": ["#"]})
        return tokenizer


class Grows(TokenizerSpec):
    sizes = itertools.count(300)

    def __init__(self) -> None:
        self.made: Any = None

    def load(self) -> Any:
        if self.made is None:
            self.made = train_byte_level_bpe([CORPUS], next(Grows.sizes))
        return self.made

    def __deepcopy__(self, memo: Any) -> Grows:
        return Grows()


BROKEN_SPECS = [
    pytest.param(NoSpec, "base"),
    pytest.param(Backend, "loads"),
    pytest.param(FreshEachTime, "same"),
    pytest.param(Endless, "usable"),
    pytest.param(Normalises, "usable"),
    pytest.param(LosesFormFeeds, "exact"),
    pytest.param(Hashless, "thoughts"),
    pytest.param(EverySpelling, "plain_text"),
    pytest.param(Grows, "repeatable"),
]


def test_sound_specs_pass(tmp_path: Path) -> None:
    check_tokenizer_spec(TrainedTokenizer(str(tiny_corpus(tmp_path / "corpus")), 300, "llama3"))


@pytest.mark.parametrize(("broken", "clause"), BROKEN_SPECS)
def test_each_clause_of_a_spec_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_tokenizer_spec, broken(), clause)


def test_no_clause_of_a_spec_is_untested() -> None:
    assert_all_shown(BROKEN_SPECS, check_tokenizer_spec(Tiny()))


# ---- decontaminator -------------------------------------------------------------------------------------------------


def benchmark_text(text: str) -> bool:
    return "has_close_elements" in text


class Alternating:
    def __init__(self) -> None:
        self.turn = itertools.count()

    def __call__(self, text: str) -> bool:
        return next(self.turn) % 2 == 1


BROKEN_DECONTAMINATORS = [
    pytest.param(lambda text: text.find("has_close_elements"), "answers"),
    pytest.param(Alternating(), "pure"),
    pytest.param(lambda text: True, "leaves"),
    pytest.param(lambda text: False, "finds"),
]
TEXTS: dict[str, Any] = {"finds": ["def has_close_elements(): ..."], "leaves": ["def has_elements(): ..."]}


@pytest.mark.parametrize(("broken", "clause"), BROKEN_DECONTAMINATORS)
def test_each_clause_of_a_decontaminator_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_decontaminator, broken, clause, **TEXTS)


def test_a_sound_decontaminator_passes_and_no_clause_is_untested() -> None:
    assert_all_shown(BROKEN_DECONTAMINATORS, check_decontaminator(benchmark_text, **TEXTS))


# ---- data module ----------------------------------------------------------------------------------------------------


class NoModule:
    pass


class Empty(TrajectoryDataModule):
    def setup(self, stage: str | None = None) -> None:
        pass


class Rereads(TrajectoryDataModule):
    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.train = list(self.train)


class Damaged(TrajectoryDataModule):
    """Its snippets are changed, once, as they are read."""

    def setup(self, stage: str | None = None) -> None:
        fresh = self.report is None
        super().setup(stage)
        if fresh:
            self.damage()

    def damage(self) -> None:
        raise NotImplementedError


class WithThoughts(Damaged):
    def damage(self) -> None:
        self.train = [t.weave({0: [300, 301, 302]}) for t in self.train]


class SameNames(Damaged):
    def damage(self) -> None:
        self.train = [replace(t, snippet_id="snippet") for t in self.train]


class TrainsOnAll(Damaged):
    def damage(self) -> None:
        self.train = self.train + [replace(t, snippet_id=f"{t.snippet_id}0") for t in self.val]


class ForgetsFiles(TrajectoryDataModule):
    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.val_files = []


class Unpacked(TrajectoryDataModule):
    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        return list(loader) if self.phase == "e" else [batch.micro for batch in loader]


class HashOfTheClock(TrajectoryDataModule):
    def data_hash(self) -> str:
        return str(id(self))


class WrongCount(TrajectoryDataModule):
    def phase_steps(self) -> int:
        return super().phase_steps() + 1


class OwnOrder(TrajectoryDataModule):
    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.seed = int(np.random.randint(1 << 30))


class DropsOne(TrajectoryDataModule):
    def _phase_data(self) -> Any:
        return super()._phase_data()[1:]


class OtherPlain(TrajectoryDataModule):
    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        if self.phase != "m":
            return loader
        return [replace(batch, plain=batch.micro) for batch in loader]


class NewOrderEachTime(TrajectoryDataModule):
    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        if self.phase == "e":
            self.epoch += 1
        return loader


class OnePass(TrajectoryDataModule):
    def set_phase(self, phase: Any, store: Any = None, steps: int | None = None) -> None:
        super().set_phase(phase, store)


class StartsOver(TrajectoryDataModule):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "loader": None})


class ValidatesOnTraining(TrajectoryDataModule):
    def val_dataloader(self) -> Any:
        return [self.train]


BROKEN_MODULES = [
    pytest.param(NoModule, "base"),
    pytest.param(Empty, "setup"),
    pytest.param(Rereads, "setup"),
    pytest.param(WithThoughts, "snippets"),
    pytest.param(SameNames, "names"),
    pytest.param(TrainsOnAll, "held_out"),
    pytest.param(ForgetsFiles, "held_out"),
    pytest.param(HashOfTheClock, "hash"),
    pytest.param(Unpacked, "phases"),
    pytest.param(WrongCount, "phases"),
    pytest.param(OwnOrder, "phases"),
    pytest.param(DropsOne, "one_pass"),
    pytest.param(OtherPlain, "plain"),
    pytest.param(NewOrderEachTime, "again"),
    pytest.param(OnePass, "steps"),
    pytest.param(StartsOver, "resumes"),
    pytest.param(ValidatesOnTraining, "validation"),
]
SETTINGS: dict[str, Any] = {
    "max_tokens": 120,
    "max_lines": 8,
    "snippets_per_step": 3,
    "tokens_per_step": 300,
    "val_fraction": 0.3,
    "tokenizer": tiny_tokenizer(),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_corpus(tmp_path_factory.mktemp("data") / "corpus"))


@pytest.mark.parametrize(("broken", "clause"), BROKEN_MODULES)
def test_each_clause_of_a_data_module_can_be_broken(broken: Any, clause: str, corpus: str) -> None:
    assert_breaks(check_data_module, broken() if broken is NoModule else broken(corpus, **SETTINGS), clause)


def test_a_sound_data_module_passes_unused_and_no_clause_is_untested(corpus: str) -> None:
    module = TrajectoryDataModule(corpus, **SETTINGS)
    assert_all_shown(BROKEN_MODULES, check_data_module(module))
    assert module.report is None
