"""`check_rollout_backend`: does a sampler do what `GRPOModule` relies on?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from ra3kit.errors import RolloutError
from ra3kit.models import base_model
from ra3kit.policy import BasePolicy
from ra3kit.rlvr.backend import Request, RolloutBackend
from ra3kit.rlvr.rows import sampled_logps
from ra3kit.rollout.jobs import Completion
from ra3kit.testing.conformance.report import Checking, Report
from ra3kit.testing.conformance.world import TEXTS, tiny_policy

MAX_NEW_TOKENS = 12
TOLERANCE = 1e-2
"""Nats that a token's log-probability may differ from the trainer's, the mean over all tokens a tenth of it."""


def check_rollout_backend(make: Callable[[], RolloutBackend]) -> Report:
    """Check a backend on a tiny policy: the clauses of `RolloutBackend`.

    Args:
        make: gives a fresh one, its class for instance.

    Raises:
        ConformanceError: the first clause that is broken, and by what.

    >>> from ra3kit.rlvr.backend import EngineBackend
    >>> check_rollout_backend(EngineBackend).checked
    ['base', 'health', 'each', 'ids', 'log_q', 'stops', 'alone', 'draws', 'refresh', 'refused', 'free']
    """
    backend = make()
    check = Checking(backend, RolloutBackend)
    with check.clause("base", "it is a RolloutBackend"):
        check.that(
            isinstance(backend, RolloutBackend), f"the bases {[base.__name__ for base in type(backend).__mro__]}"
        )
    policy = ending_policy(0)
    requests = requests_of(policy)
    with check.clause("health", "after `refresh` it can sample, with the version it was given", "health"):
        backend.refresh(policy.model, policy.tokenizer, 3)
        check.that(backend.version == 3, f"version {backend.version} after version 3 was given")
        health = backend.health()
        check.that(health.ok and health.version == 3, f"{health}")
    each = "a completion for each request, in their order, and `on_done` once for each with the same"
    with check.clause("each", each, "sample"):
        seen: list[tuple[int, Completion]] = []
        with backend.session():
            given = backend.sample(requests, 5, MAX_NEW_TOKENS, 1.0, lambda *done: seen.append(done))
        check.that(len(given) == len(requests), f"{len(given)} for {len(requests)}")
        counts = Counter(index for index, _ in seen)
        check.that(counts == Counter(range(len(requests))), f"`on_done` was called {dict(counts)} times")
        check.that(all(given[index] == done for index, done in seen), "another completion than that of `on_done`")
    with check.clause("ids", "1 to `max_new_tokens` ids, each with its log-probability; `finish` says what ended them"):
        for completion in given:
            ids, end = completion.ids, completion.ids[-1:] == [policy.tokenizer.eos_token_id]
            check.that(1 <= len(ids) <= MAX_NEW_TOKENS, f"{len(ids)} ids of at most {MAX_NEW_TOKENS}")
            check.that(
                len(completion.log_q) == len(ids), f"{len(completion.log_q)} log-probabilities of {len(ids)} ids"
            )
            finish = "end" if end else "length"
            check.that(completion.finish == finish, f"finish {completion.finish!r}, where it is {finish!r}")
            full = end or len(ids) == MAX_NEW_TOKENS
            check.that(full, f"{len(ids)} ids of {MAX_NEW_TOKENS}, and no end token")
    log_q = "`log_q` are nats under softmax(logits / temperature), of all tokens, as the trainer has them"
    with check.clause("log_q", log_q):
        for temperature in (1.0, 0.6):
            sampled = draw(backend, requests, temperature=temperature)
            check.that(
                (gap := worst(policy, requests, sampled, temperature)) == "", f"{gap}, temperature {temperature}"
            )
    with check.clause("stops", "a stop string ends an answer; its text is cut before it, its ids are kept"):
        stopped = draw(backend, requests_of(policy, stops=("e",)), 40)
        cut = [completion for completion in stopped if completion.finish == "stop"]
        check.that(bool(cut), f"no answer was stopped by 'e': {[completion.text for completion in stopped][:3]}")
        for completion in stopped:
            whole = str(policy.tokenizer.decode(completion.ids, skip_special_tokens=True))
            check.that("e" not in completion.text, f"the text {completion.text!r}")
            check.that(
                ("e" in whole) == (completion.finish == "stop"), f"{completion.finish!r} for the ids of {whole!r}"
            )
    alone = "an answer depends on prompt, name and seed, not on what is sampled beside it, before it, or in which order"
    if backend.reproducible:
        with check.clause("alone", alone):
            some = [5, 0, 3]
            again = draw(backend, [requests[i] for i in some])
            for index, completion in zip(some, again, strict=True):
                check.that(completion.ids == given[index].ids, f"{completion.text!r}, before {given[index].text!r}")
    else:
        check.skip("alone", alone, "it is not `reproducible`")
    with check.clause("draws", "another seed, and another name, draw anew"):
        for what, other in (
            ("seed", draw(backend, requests, seed=6)),
            ("name", draw(backend, requests_of(policy, names="other {}"))),
        ):
            same = sum(a.ids == b.ids for a, b in zip(given, other, strict=True))
            check.that(2 * same < len(given), f"{same} of {len(given)} answers are the same with another {what}")
    with check.clause("refresh", "after `refresh` every draw is from the weights as they were then", "refresh"):
        policy.model.load_state_dict(ending_policy(1).model.state_dict())
        backend.refresh(policy.model, policy.tokenizer, 4)
        check.that(backend.version == backend.health().version == 4, f"version {backend.version} after version 4")
        check.that((gap := worst(policy, requests, draw(backend, requests), 1.0)) == "", f"{gap}, after `refresh`")
    with check.clause("refused", "a request that cannot be served raises RolloutError"):
        room = int(base_model(policy.model).config.max_position_embeddings)
        for what, prompt in (("an empty prompt", []), ("one beyond the model's context", [1] * (room + 1))):
            check.that(is_refused(backend, Request(prompt, "x")), f"{what} was not refused")
    with check.clause("free", "after `free` it samples again", "free"):
        before = draw(backend, requests)
        backend.free()
        backend.refresh(policy.model, policy.tokenizer, 5)
        after = draw(backend, requests)
        same = all(a.ids == b.ids for a, b in zip(before, after, strict=True)) or not backend.reproducible
        check.that(same, "other answers from the same weights")
    return check.report()


def ending_policy(seed: int) -> BasePolicy:
    """A tiny policy, some of whose answers end by themselves."""
    policy = tiny_policy(4.0, seed)
    head = base_model(policy.model).get_output_embeddings()
    with torch.no_grad():
        head.bias[policy.tokenizer.eos_token_id] = 4.0
    return policy


def requests_of(policy: BasePolicy, names: str = "{}", stops: tuple[str, ...] = ()) -> list[Request]:
    """Three answers to each of the texts, and to one of a single token."""
    prompts = [[policy.tokenizer.eos_token_id, *policy.tokenizer.encode(text)] for text in TEXTS]
    prompts.append([policy.tokenizer.eos_token_id])
    return [Request(prompt, names.format(f"{i}.{n}"), stops) for i, prompt in enumerate(prompts) for n in range(3)]


def draw(
    backend: RolloutBackend,
    requests: Sequence[Request],
    most: int = MAX_NEW_TOKENS,
    temperature: float = 1.0,
    seed: int = 5,
) -> list[Completion]:
    """Answers to the requests."""
    with backend.session():
        return backend.sample(requests, seed, most, temperature, lambda *_: None)


def worst(policy: BasePolicy, requests: Sequence[Request], given: Sequence[Completion], temperature: float) -> str:
    """How far the log-probabilities are from the policy's own, where that is too far; else ""."""
    pairs = [(request.prompt, completion.ids) for request, completion in zip(requests, given, strict=True)]
    own = torch.cat([torch.from_numpy(logps) for logps in sampled_logps(policy.model, pairs, temperature, 4096)])
    gaps = (torch.tensor([value for completion in given for value in completion.log_q]) - own).abs()
    far = not (gaps.max() <= TOLERANCE and gaps.mean() <= TOLERANCE / 10)  # nan is far, too
    return f"log-probabilities up to {float(gaps.max()):.3g} nats from the trainer's" if far else ""


def is_refused(backend: RolloutBackend, request: Request) -> bool:
    """Whether a request raises RolloutError."""
    try:
        draw(backend, [request])
    except RolloutError:
        return True
    return False
