"""The parts keep the contracts of ra3kit, and do what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from own_parts.callbacks import CommonThoughts, Patience
from own_parts.filters import is_test
from own_parts.posteriors import StridedPosterior
from own_parts.priors import Refractory
from own_parts.segmenters import Paragraphs

from ra3kit.errors import RecipeError
from ra3kit.testing import (
    check_callback,
    check_decontaminator,
    check_em_switch,
    check_posterior,
    check_prior,
    check_segmenter,
)


def test_contracts() -> None:
    check_prior(Refractory(lines=3))
    check_segmenter(Paragraphs())
    check_posterior(StridedPosterior(every=2))
    check_em_switch(Patience())
    check_callback(CommonThoughts())
    check_decontaminator(is_test, finds=["def test_it():\n    assert f()\n"], leaves=["x = 1\n"])


def test_a_thought_soon_after_another_costs_more() -> None:
    is_thought = torch.tensor([True, False, True, False, False, True])
    costs = Refractory(c=0.5, extra=1.0, lines=2).penalty(is_thought, torch.zeros(6, dtype=torch.float64))
    assert costs.tolist() == [0.5, 0.0, 1.5, 0.0, 0.0, 0.5]
    with pytest.raises(RecipeError, match="must be >= 0"):
        Refractory(c=-1.0)


def test_paragraphs_end_at_blank_lines_but_not_inside_strings() -> None:
    text = "a = 1\nb = '''x\n\ny'''\n\n\nc = (1,\n\n 2)\nd = 3"
    assert [action.text for action in Paragraphs().segment(text)] == [
        "a = 1\nb = '''x\n\ny'''\n\n\n",
        "c = (1,\n\n 2)\nd = 3",
    ]


def test_every_other_decision_is_open() -> None:
    may_think = np.array([True, True, False, True, True])
    assert StridedPosterior(every=2)._open(may_think).tolist() == [True, False, False, True, False]


def test_patience_counts_updates_since_the_best() -> None:
    rule = Patience(patience=2)
    ends = [rule.should_switch("e", [1.0, 3.0, 2.0, 3.0][:n]) for n in range(1, 5)]
    assert ends == [False, False, False, True]
    assert not rule.should_switch("m", [])
