"""`check_policy`: do loss and score agree, is a snapshot frozen, does a saved folder give the same model back?"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from ra3kit.actions import PythonLines
from ra3kit.data.encode import encode_texts, trajectory_from_text
from ra3kit.data.packing import pack
from ra3kit.data.trajectory import Trajectory
from ra3kit.policy import BasePolicy
from ra3kit.testing.conformance.report import Checking, Report
from ra3kit.testing.conformance.runs import silence
from ra3kit.testing.conformance.world import TEXTS

TOLERANCE = 1e-4
"""Relative, between two ways to compute one number in float32."""


def check_policy(policy: BasePolicy) -> Report:
    """Check a policy on snippets with and without thoughts: the clauses of `BasePolicy`.

    Args:
        policy: in float32; it is copied, and left as it is.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
    """
    check = Checking(policy, BasePolicy)
    with check.clause("base", "it is a BasePolicy, and its __init__ calls the base's"):
        check.that(isinstance(policy, BasePolicy), type(policy).__mro__)
        check.that(hasattr(policy, "model") and hasattr(policy, "tokenizer"), "no super().__init__(...) was called")
    pi = copy.deepcopy(policy)
    plain = [trajectory_from_text(pi.tokenizer, f"s{i}", text, PythonLines()) for i, text in enumerate(TEXTS)]
    thought = encode_texts(pi.tokenizer, ["# a thought\n"])[0]
    woven = [t.weave({0: thought}) for t in plain]
    with check.clause("scores", "`score` gives float64 [t - 1] nats, at most 0, of each trajectory", "score"):
        scores = pi.score(woven)
        for trajectory, logp in zip(woven, scores, strict=True):
            shape = (len(trajectory.ids) - 1,)
            check.that(logp.shape == shape and logp.dtype == np.float64, f"{logp.dtype} {logp.shape}, wanted {shape}")
            check.that(bool((np.isfinite(logp) & (logp <= 0)).all()), f"a log-probability of {logp.max():.3g}")
    with check.clause("alone", "the score of a trajectory does not depend on what is scored with it"):
        for trajectory, logp in zip(woven, scores, strict=True):
            gap = float(np.abs(pi.score([trajectory])[0] - logp).max())
            check.that(gap < TOLERANCE, f"{trajectory.snippet_id}: {gap:.3g} nats apart")
    with check.clause("loss", "`row_loss` is minus the summed score, split into code and thoughts", "row_loss"):
        _check_loss(check, pi, woven, scores)
    with check.clause("gradient", "`row_loss` has a gradient on the trained weights"):
        loss = pi.row_loss(pack(woven))
        (loss.code + loss.thought).backward()
        moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in pi.parameters() if p.requires_grad]
        check.that(any(moved), "no gradient, or zero, on every parameter")
        pi.zero_grad()
    with check.clause(
        "snapshot", "`snapshot` is a frozen copy: it stays as it is when the policy is trained", "snapshot"
    ):
        frozen = pi.snapshot()
        check.that(not any(p.requires_grad for p in frozen.parameters()), "it has parameters that are trained")
        before = [value.clone() for value in frozen.state_dict().values()]
        with torch.no_grad():
            for parameter in pi.parameters():
                parameter.add_(0.01)
        same = all(torch.equal(a, b) for a, b in zip(frozen.state_dict().values(), before, strict=True))
        check.that(same, "its weights changed with the policy's")
    with check.clause("optimizer", "`configure_optimizers` holds every trained weight", "configure_optimizers"):
        held = {id(p) for group in pi.configure_optimizers().param_groups for p in group["params"]}
        missing = [name for name, p in pi.named_parameters() if p.requires_grad and id(p) not in held]
        check.that(not missing, f"not in it: {missing[:3]}")
    with check.clause("saves", "`save` writes a folder that transformers alone loads to the same model", "save"):
        _check_saved(check, copy.deepcopy(policy), plain)
    return check.report()


def _check_loss(check: Checking, pi: BasePolicy, woven: Sequence[Trajectory], scores: Sequence[np.ndarray]) -> None:
    loss = pi.row_loss(pack(woven))
    thoughts = sum(
        float(s[start - 1 : end - 1].sum()) for t, s in zip(woven, scores, strict=True) for start, end in t.thoughts
    )
    everything = sum(float(s.sum()) for s in scores)
    for name, got, wanted in (("thought", loss.thought, -thoughts), ("code", loss.code, thoughts - everything)):
        close = abs(float(got.detach()) - wanted) <= TOLERANCE * (1 + abs(wanted))
        check.that(close, f"{name}: {float(got.detach()):.6g} nats, the score says {wanted:.6g}")
    tokens = sum(len(t.ids) - 1 for t in woven)
    count = loss.code_tokens + loss.thought_tokens
    check.that(count == tokens, f"{count} tokens counted, {tokens} are trained")


def _check_saved(check: Checking, pi: BasePolicy, plain: Sequence[Trajectory]) -> None:
    with tempfile.TemporaryDirectory() as folder, silence():
        pi.save(folder)
        loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    for trajectory, logp in zip(plain, pi.score(plain), strict=True):
        ids = torch.from_numpy(trajectory.ids.astype(np.int64))[None]
        with torch.no_grad():
            all_logps = loaded(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        again = all_logps.gather(1, ids[0, 1:, None]).squeeze(1).double().numpy()
        gap = float(np.abs(again - logp).max())
        check.that(gap < 10 * TOLERANCE, f"{trajectory.snippet_id}: {gap:.3g} nats apart after loading")
