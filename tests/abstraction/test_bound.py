"""Bounds against exhaustive enumeration of a tiny latent space, the token ratio against sums, information gain."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ra3kit.abstraction.bound import elbo_terms, information_gain, iwae, learned_bound
from ra3kit.abstraction.prior import TemporalPrior
from ra3kit.abstraction.statistics import distinct_ratio, effective_horizon, thought_rate, thought_spans
from ra3kit.metrics import TokenRatio

START, HASH, RED, BLUE, NEWLINE, X, Y, END = range(8)
WORDS = (RED, BLUE)
THOUGHTS = [
    (HASH, *words, NEWLINE) for count in (0, 1, 2) for words in itertools.product(WORDS, repeat=count)
]  # 1 + 2 + 4
LATENTS: list[tuple[int, ...]] = [(), *THOUGHTS]
"""All |Z| = 8 latents of one line: `<act>` (no tokens), then the thoughts."""


def table(seed: int, concentration: float = 0.7) -> Tensor:
    """Random next-token log-probabilities, [8, 8, 8]: (token before last, last token) -> next token."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(8, 8, 8, generator=generator, dtype=torch.float64) ** (1 / concentration) + 1e-3
    return (weights / weights.sum(-1, keepdim=True)).log()


def sequence_logp(lm: Tensor, context: list[int], tokens: tuple[int, ...]) -> float:
    """Raw log-probability of `tokens` after `context`, nats."""
    total, text = 0.0, list(context)
    for token in tokens:
        total += float(lm[text[-2], text[-1], token])
        text.append(token)
    return total


def latent_logq(q: Tensor, context: list[int], latent: tuple[int, ...]) -> float:
    """log q(latent | context) under the grammar, nats."""
    think = float(q[context[-2], context[-1], HASH].exp())
    if not latent:
        return float(torch.tensor(1.0 - think, dtype=torch.float64).log())
    total, text, words = float(q[context[-2], context[-1], HASH]), [*context, HASH], 0
    for token in latent[1:]:
        allowed = [NEWLINE] if words == 2 else [*WORDS, NEWLINE]
        row = q[text[-2], text[-1], allowed].log_softmax(0)
        total += float(row[allowed.index(token)])
        words += token in WORDS
        text.append(token)
    return total


@dataclass
class Paths:
    """Every latent path of one snippet, one row each: p paths, n lines. Nats; `is_thought` bool."""

    line_logp: Tensor
    thought_logp: Tensor
    log_q: Tensor
    is_thought: Tensor

    @property
    def log_joint(self) -> Tensor:
        """[p], log pi(z, a): raw log-probability of all thought and code tokens."""
        return (self.line_logp + self.thought_logp).sum(-1)


def enumerate_paths(pi: Tensor, q: Tensor, lines: list[tuple[int, ...]]) -> Paths:
    """All 8^n latent paths of a snippet under model `pi` and posterior `q`; the last line includes the end token."""
    rows = []
    for path in itertools.product(LATENTS, repeat=len(lines)):
        context, row = [START, START], []
        for index, (latent, line) in enumerate(zip(path, lines, strict=True)):
            code = (*line, END) if index == len(lines) - 1 else line
            written = [*context, *latent]
            row.append(
                (
                    sequence_logp(pi, written, code),
                    sequence_logp(pi, context, latent),
                    latent_logq(q, context, latent),
                    float(bool(latent)),
                )
            )
            context = [*written, *code]
        rows.append(row)
    values = torch.tensor(rows, dtype=torch.float64)  # [p n 4]
    line_logp, thought_logp, log_q, is_thought = values.unbind(-1)
    return Paths(line_logp, thought_logp, log_q, is_thought.bool())


TWO_LINES = [(X, NEWLINE), (Y, X, NEWLINE)]
THREE_LINES = [*TWO_LINES, (Y, NEWLINE)]


def kl(q: Tensor, p: Tensor) -> Tensor:
    """KL of two distributions given by their logarithms, nats."""
    return (q.exp() * (q - p)).sum()


def expected_single(log_joint: Tensor, log_q: Tensor) -> Tensor:
    """E_q of the one-sample bound, over all paths."""
    return (log_q.exp() * learned_bound(log_joint[:, None], log_q[:, None])).sum()


def expected_over_pairs(bound, log_joint: Tensor, log_q: Tensor) -> Tensor:
    """E of a two-sample bound, over all pairs of paths drawn independently from q."""
    first, second = torch.cartesian_prod(torch.arange(len(log_q)), torch.arange(len(log_q))).T
    pairs = torch.stack([first, second], dim=1)  # [p*p 2]
    return (log_q[pairs].sum(1).exp() * bound(log_joint[pairs], log_q[pairs])).sum()


@pytest.fixture(scope="module", params=[TWO_LINES, THREE_LINES], ids=["2 lines", "3 lines"])
def paths(request: pytest.FixtureRequest):
    return enumerate_paths(pi=table(0), q=table(1), lines=request.param)


def test_the_enumeration_is_complete(paths):
    """q and the temporal prior each put all their mass on the enumerated paths."""
    assert paths.log_q.sum(-1).exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    prior = TemporalPrior(0.6, num_latents=len(LATENTS))
    assert prior.log_prob(paths.is_thought).sum(-1).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_learned_bound_is_the_marginal_minus_the_kl_to_the_posterior(paths):
    log_joint, log_q = paths.log_joint, paths.log_q.sum(-1)
    marginal = log_joint.logsumexp(0)
    gap = kl(log_q, log_joint - marginal)
    assert gap > 0.1  # otherwise the equality below would say little
    torch.testing.assert_close(expected_single(log_joint, log_q), marginal - gap)
    torch.testing.assert_close(expected_over_pairs(learned_bound, log_joint, log_q), marginal - gap)


def test_iwae_lies_between_the_elbo_and_the_marginal(paths):
    log_joint, log_q = paths.log_joint, paths.log_q.sum(-1)
    marginal, elbo = log_joint.logsumexp(0), expected_single(log_joint, log_q)
    two = expected_over_pairs(iwae, log_joint, log_q)
    assert elbo + 0.01 < two < marginal - 0.01
    one = (log_q.exp() * iwae(log_joint[:, None], log_q[:, None])).sum()
    torch.testing.assert_close(one, elbo)


def test_iwae_inside_the_logarithm_is_unbiased(paths):
    """E_q[exp IWAE-2] is the marginal itself: the mean of two unbiased estimates of it."""
    log_joint, log_q = paths.log_joint, paths.log_q.sum(-1)
    estimate = expected_over_pairs(lambda joint, q: iwae(joint, q).exp(), log_joint, log_q)
    torch.testing.assert_close(estimate.log(), log_joint.logsumexp(0))


def test_both_bounds_are_tight_for_the_exact_posterior(paths):
    log_joint = paths.log_joint
    marginal = log_joint.logsumexp(0)
    posterior = log_joint - marginal
    each = learned_bound(log_joint[:, None], posterior[:, None])
    torch.testing.assert_close(each, marginal.expand_as(each))  # on every path, not only on average
    pair = torch.tensor([[0, 5], [3, 60]])
    torch.testing.assert_close(iwae(log_joint[pair], posterior[pair]), marginal.expand(2))


def test_elbo_terms_under_the_learned_prior_are_the_learned_bound(paths):
    real = torch.ones_like(paths.is_thought)
    terms = elbo_terms(paths.line_logp, paths.thought_logp, paths.log_q, real)
    torch.testing.assert_close(terms.total, paths.log_joint - paths.log_q.sum(-1))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 0.95])
def test_elbo_under_the_fixed_prior_is_its_own_marginal_minus_a_kl(paths, alpha: float):
    """log sum_z p(z) pi(a|z) = ELBO + KL(q || posterior); the terms are E[log pi], E[log p], the entropy of q."""
    log_p = TemporalPrior(alpha, num_latents=len(LATENTS)).log_prob(paths.is_thought)
    real = torch.ones_like(paths.is_thought)
    terms, log_q = elbo_terms(paths.line_logp, log_p, paths.log_q, real), paths.log_q.sum(-1)
    q = log_q.exp()
    joint = paths.line_logp.sum(-1) + log_p.sum(-1)
    torch.testing.assert_close((q * terms.total).sum(), joint.logsumexp(0) - kl(log_q, joint - joint.logsumexp(0)))
    torch.testing.assert_close((q * terms.reconstruction).sum(), (q * paths.line_logp.sum(-1)).sum())
    torch.testing.assert_close((q * terms.entropy).sum(), torch.special.entr(q).sum())
    torch.testing.assert_close((q * terms.kl).sum(), kl(log_q, log_p.sum(-1)))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 0.95])
def test_kl_over_paths_is_the_sum_over_lines_of_proposition_5_1(paths, alpha: float):
    """Chain rule: KL(q || p) of whole paths = sum_t E_q of the per-line KL in its two terms."""
    prior = TemporalPrior(alpha, num_latents=len(LATENTS))
    whole = kl(paths.log_q.sum(-1), prior.log_prob(paths.is_thought).sum(-1))
    total = torch.zeros((), dtype=torch.float64)
    lines = paths.log_q.shape[1]
    for line in range(lines):
        # paths run in product order: axis = (latents before `line`, latent at `line`, the rest)
        shape = (8**line, 8, 8 ** (lines - line - 1))
        per_latent = paths.log_q[:, line].view(shape)[..., 0].exp()  # [prefixes 8], the rest does not matter
        reach = paths.log_q[:, :line].sum(-1).exp().view(shape)[:, 0, 0]  # probability of each prefix
        rho, thoughts = per_latent[:, 0], per_latent[:, 1:]
        entropy = torch.special.entr(thoughts / thoughts.sum(-1, keepdim=True)).sum(-1)
        total = total + (reach * prior.kl(rho, entropy).total).sum()
    torch.testing.assert_close(total, whole)


def test_elbo_terms_do_not_read_padding():
    nan = float("nan")
    is_line = torch.tensor([[[True, True, False]], [[True, False, False]]])
    values = torch.tensor([[[1.0, 2.0, nan]], [[3.0, nan, nan]]])
    terms = elbo_terms(-values, -2 * values, -values, is_line)
    assert terms.reconstruction.tolist() == [[-3.0], [-3.0]]
    assert terms.prior.tolist() == [[-6.0], [-6.0]]
    assert terms.entropy.tolist() == [[3.0], [3.0]]
    assert terms.kl.tolist() == [[3.0], [3.0]]
    assert terms.total.tolist() == [[-6.0], [-6.0]]


def test_iwae_survives_log_weights_of_thousands_of_nats():
    log_joint = torch.tensor([[-9000.0, -9001.0], [-9000.0, -math.inf]])
    bound = iwae(log_joint, torch.tensor([[-1.0, -2.0], [-1.0, -1.0]]))
    torch.testing.assert_close(bound, torch.tensor([-8999.0, -8999.0 - math.log(2)]))


def test_token_ratio_weighs_tokens_not_batches():
    ratio = TokenRatio()
    ratio.update(torch.tensor([10.0, 20.0]), torch.tensor([5, 5]))
    ratio.update(torch.tensor(1.0), 1)
    assert ratio.compute().item() == pytest.approx(31 / 11)
    ratio.reset()
    ratio.update(torch.tensor(4.0), torch.tensor(8))
    assert ratio.compute().item() == 0.5


def test_token_ratio_of_nothing_is_nan():
    ratio = TokenRatio()
    ratio.update(torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert math.isnan(ratio.compute())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_token_ratio_keeps_its_digits_in_a_module_of_a_shorter_dtype(dtype: torch.dtype):
    owner = torch.nn.Module()
    owner.ratio = TokenRatio()
    owner.ratio.update(torch.tensor(1.0), 1)
    owner.to(dtype)
    for _ in range(1000):
        owner.ratio.update(torch.tensor(1.0 + 2**-10), 1)
    assert owner.ratio.compute().item() == pytest.approx(1 + 1000 / 1001 * 2**-10, abs=1e-12)
    owner.ratio.reset()
    assert owner.ratio.nats.dtype == owner.ratio.tokens.dtype == torch.float64


def _ratio_on_rank(rank: int, world: int, rendezvous: str, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
    ratio = TokenRatio()
    if rank == 0:  # the other process sees no data: it must still take part
        ratio.update(torch.tensor([10.0, 20.0]), torch.tensor([5, 4]))
    else:
        ratio.update(torch.tensor(3.0), 1)
        ratio.update(torch.tensor(3.0), 2)
    torch.save(ratio.compute(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow  # two processes; the fast tests see it at work in tests/distributed
def test_token_ratio_sums_over_processes(tmp_path):
    torch.multiprocessing.spawn(_ratio_on_rank, (2, str(tmp_path / "meet"), str(tmp_path)), nprocs=2)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt").item() == pytest.approx(36 / 12)


def test_information_gain_is_a_difference_on_the_same_lines():
    gain = information_gain(torch.tensor([-4.0, -9.0]), torch.tensor([-10.0, -8.0]), torch.tensor([3, 2]))
    assert gain.total.tolist() == [6.0, -1.0]
    assert gain.per_token.tolist() == [2.0, -0.5]


def test_thought_spans_reach_to_the_next_thought():
    assert thought_spans(torch.tensor([True, False, True, True, False])).tolist() == [[0, 2], [2, 3], [3, 5]]
    assert thought_spans(torch.tensor([False, False])).shape == (0, 2)
    assert thought_spans(torch.zeros(0, dtype=torch.bool)).shape == (0, 2)


def test_effective_horizon_runs_from_one_line_to_all():
    is_line = torch.tensor([[True] * 4, [True, True, False, False]])
    never, always = torch.zeros_like(is_line), torch.ones_like(is_line)
    assert effective_horizon(never, is_line).item() == 3.0  # (4 + 2) / 2
    assert effective_horizon(always, is_line).item() == 1.0  # a True on padding does not count
    second = torch.tensor([[False, True, False, False], [False, True, False, False]])
    assert effective_horizon(second, is_line).item() == 1.5  # 6 lines, 2 intents each
    first = torch.tensor([[True, False, False, False], [False, False, False, False]])
    assert effective_horizon(first, is_line).item() == 3.0  # a first thought replaces the empty intent


def test_thought_rate_is_over_the_places_where_a_latent_may_stand():
    is_thought = torch.tensor([[True, False, False, False]])
    assert thought_rate(is_thought, torch.tensor([[True, False, True, False]])).item() == 0.5


def test_distinct_ratio():
    assert distinct_ratio([(1, 2), (1, 2), (3,), (1, 2)]) == 0.5
    assert math.isnan(distinct_ratio([]))
