"""Common ground of the tests: no network, fixed seeds, caches in a temporary folder, and the shared data if there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tests/samples.py, from wherever the tests are started
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub client
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads that spin stall on a busy machine

import logging
import random

import lightning.pytorch  # noqa: F401  (its logger must exist before its handlers are taken away)
import numpy as np
import pytest
import torch
from hypothesis import settings
from transformers import PreTrainedTokenizerFast

from ra3kit.data.corpora import read_files
from ra3kit.data.tokenizer import Rules, train_byte_level_bpe

# Lightning's console handler keeps the stream it was made with, which pytest closes after each test
logging.getLogger("lightning.pytorch").handlers.clear()

settings.register_profile("repeatable", deadline=None, derandomize=True)  # a busy machine must not fail a test
settings.register_profile("search", deadline=None, max_examples=3000)  # pytest --hypothesis-profile=search
settings.load_profile("repeatable")

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Trained tokenizers are cached for this test run only."""
    os.environ["RA3KIT_CACHE"] = str(tmp_path_factory.mktemp("ra3kit-cache"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the public data sets (`RA3KIT_DATA`, or `../shared/data`); tests that need it skip without it."""
    folder = Path(os.environ.get("RA3KIT_DATA") or REPO.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set RA3KIT_DATA")
    return folder


@pytest.fixture(scope="session")
def stdlib_texts() -> list[tuple[str, str]]:
    """(name, text) of 120 standard library files, a fair sample."""
    files = read_files("stdlib")
    return [(file.name, file.text) for file, _ in zip(files, range(120), strict=False)]


@pytest.fixture(scope="session")
def tokenizers(stdlib_texts: list[tuple[str, str]]) -> dict[Rules, PreTrainedTokenizerFast]:
    """Byte-level BPE tokenizers under the three sets of pre-tokenizer rules, trained on real code."""
    texts = [text for _, text in stdlib_texts[:40]]
    rules: tuple[Rules, ...] = ("qwen2", "llama3", "gpt2")
    return {r: train_byte_level_bpe(texts, 1000, r) for r in rules}


@pytest.fixture(scope="session")
def tokenizer(tokenizers: dict[Rules, PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """The one with the Qwen2 rules."""
    return tokenizers["qwen2"]
