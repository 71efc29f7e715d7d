"""GRPOModule: its gradient is that of a loss written out by hand; answers, groups, staleness, verdicts, learning."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_grpo import LIMIT, SmallData, TextJudge, Watch, ending_policy, even, grpo, run

from ra3kit.errors import RecipeError, RolloutError
from ra3kit.optimize import Optimization
from ra3kit.rlvr.backend import EngineBackend, Health
from ra3kit.rlvr.grpo import GRPOModule
from ra3kit.rlvr.rewards import VerifierReward
from ra3kit.rlvr.tasks import Answer


def logps(model: Any, answer: Answer, temperature: float) -> torch.Tensor:
    """Log-probabilities of the sampled ids by a forward of the answer alone, with transformers' own attention."""
    model.set_attn_implementation("eager")
    ids = [*answer.task.prompt, *answer.completion.ids]
    logits = model(torch.tensor([ids])).logits[0, len(answer.task.prompt) - 1 : -1] / temperature
    model.set_attn_implementation("ra3")
    return logits.log_softmax(-1).gather(1, torch.tensor(answer.completion.ids)[:, None]).squeeze(1)


def by_hand(module: GRPOModule, groups: list[list[Answer]], reference: Any = None) -> list[torch.Tensor]:
    """The gradient of GRPO's first step, from the definitions: on policy, so ratios are 1 and nothing is clipped."""
    terms: list[tuple[torch.Tensor, int]] = []
    for group in groups:
        rewards = [float(even(answer.completion.text)) for answer in group]
        if len(set(rewards)) == 1:
            continue
        for i, (answer, reward) in enumerate(zip(group, rewards, strict=True)):
            if module.mask_truncated and answer.completion.finish == "length":
                continue
            others = [r for j, r in enumerate(rewards) if j != i]
            advantage = reward - float(np.mean(others if module.advantage == "loo" else rewards))
            if module.advantage == "std":
                advantage /= float(np.std(rewards, ddof=1)) + 1e-4
            logp = logps(module.policy.model, answer, module.temperature)
            loss = -(logp - logp.detach()).exp() * advantage
            if reference is not None:
                with torch.no_grad():
                    d = logps(reference, answer, module.temperature)
                loss = loss + module.beta * ((d - logp).exp() - 1 - (d - logp))
            terms.append((loss, len(answer.completion.ids)))
    if module.normalise == "token":
        total = torch.cat([loss for loss, _ in terms]).mean()
    elif module.normalise == "sequence":
        total = torch.stack([loss.mean() for loss, _ in terms]).mean()
    else:
        total = torch.stack([loss.sum() / LIMIT for loss, _ in terms]).mean()
    return list(torch.autograd.grad(total, list(module.policy.model.parameters())))


def assert_close(got: list[torch.Tensor | None], wanted: list[torch.Tensor]) -> None:
    whole = torch.cat([g.flatten() for g in got if g is not None])
    expected = torch.cat([w.flatten() for w in wanted])
    assert float(expected.norm()) > 1e-4
    assert float((whole - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"advantage": "std"},
        {"advantage": "loo", "normalise": "sequence"},
        {"normalise": "constant", "mask_truncated": False},
        {"temperature": 0.7, "mask_truncated": False},
        {"temperature": 1.6, "tokens_per_forward": 1},
    ],
    ids=str,
)
def test_the_first_gradient_is_that_of_the_definitions(settings: dict[str, Any], tmp_path: Path) -> None:
    module = grpo(ending_policy(seed=1), **settings)
    watch = run(tmp_path, module, 1)
    before = grpo(ending_policy(seed=1), **settings)  # the weights that sampled, and the settings
    assert_close(watch.gradients[0], by_hand(before, watch.answers[0]))


def test_with_a_reference_the_gradient_is_drawn_to_it(tmp_path: Path) -> None:
    """The KL is 0 where the policy is its reference, so the reference is moved."""
    module, other = grpo(ending_policy(seed=1), beta=0.5, mask_truncated=False), ending_policy(seed=2).model
    module.frozen["reference"].load_state_dict(other.state_dict())
    watch = run(tmp_path, module, 1)
    before = grpo(ending_policy(seed=1), beta=0.5, mask_truncated=False)
    assert_close(watch.gradients[0], by_hand(before, watch.answers[0], other))
    assert watch.logged[0]["rlvr/kl"] > 0.01


def test_the_reference_is_the_policy_at_the_start_and_stays(tmp_path: Path) -> None:
    module = grpo(beta=0.1)
    start = {name: value.clone() for name, value in module.policy.model.state_dict().items()}
    watch = run(tmp_path, module, 3)
    assert watch.logged[0]["rlvr/kl"] == pytest.approx(0, abs=1e-6)
    assert watch.logged[-1]["rlvr/kl"] > 0
    for name, value in module.frozen["reference"].state_dict().items():
        assert torch.equal(value, start[name])
    assert not torch.equal(module.policy.model.state_dict()["lm_head.weight"], start["lm_head.weight"])


# ---- answers --------------------------------------------------------------------------------------------------------


def texts(watch: Watch) -> dict[str, list[list[int]]]:
    return {
        f"{group[0].task.problem.id} {step}": [answer.completion.ids for answer in group]
        for step, groups in enumerate(watch.answers)
        for group in groups
    }


def test_answers_do_not_depend_on_slots_or_on_what_is_sampled_beside_them(tmp_path: Path) -> None:
    frozen = Optimization(lr=1e-12, warmup=0.0, weight_decay=0.0)  # every step samples from the same weights
    seen: list[dict[str, list[list[int]]]] = []
    for slots, per_step in ((2, 2), (64, 6), (5, 3)):
        module = grpo(backend=EngineBackend(slots=slots), optimization=frozen)
        watch = run(tmp_path, module, 6 // per_step, SmallData(prompts_per_step=per_step))
        seen.append({name.split()[0]: ids for name, ids in texts(watch).items()})
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 6
    assert len({str(ids) for group in seen[0].values() for ids in group}) > 12


def test_a_second_visit_draws_anew_and_another_seed_too(tmp_path: Path) -> None:
    frozen = Optimization(lr=1e-12, warmup=0.0, weight_decay=0.0)
    first, second = (run(tmp_path, grpo(optimization=frozen, seed=seed), 4) for seed in (0, 1))
    names = texts(first)
    assert len(names) == 12  # two epochs of two steps
    by_problem: dict[str, list[str]] = {}
    for name, ids in names.items():
        by_problem.setdefault(name.split()[0], []).append(str(ids))
    assert all(len(set(visits)) == 2 for visits in by_problem.values())
    assert texts(second) != names
    assert texts(run(tmp_path, grpo(optimization=frozen), 4)) == names


def test_what_is_sampled_has_the_trainers_log_probabilities(tmp_path: Path) -> None:
    module = grpo(ending_policy(seed=1), temperature=0.7)
    watch = run(tmp_path, module, 1)
    model = ending_policy(seed=1).model
    for group in watch.answers[0]:
        for answer in group:
            wanted = logps(model, answer, 0.7).detach().numpy()
            assert np.abs(np.asarray(answer.completion.log_q) - wanted).max() < 1e-5
    assert watch.logged[0]["rlvr/logp_gap_max"] < 1e-5
    assert watch.logged[0]["rlvr/is_weight_mean"] == pytest.approx(1, abs=1e-5)


def test_a_sampler_that_is_not_well_ends_the_run(tmp_path: Path) -> None:
    class Ill(EngineBackend):
        def health(self) -> Health:
            return Health(self.version < 1, self.version, "the server is gone")

    module = grpo(backend=Ill())
    with pytest.raises(RolloutError, match=r"the server is gone \(weights of step 1"):
        run(tmp_path, module, 3)
    assert module.trainer.global_step == 1

    class Behind(EngineBackend):
        def refresh(self, model: Any, tokenizer: Any, version: int) -> None:
            super().refresh(model, tokenizer, 0)

    with pytest.raises(RolloutError, match="weights of step 0, wanted 1"):
        run(tmp_path, grpo(backend=Behind()), 3)


# ---- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("passes", "name"), [(True, "groups_all_pass"), (False, "groups_all_fail")])
def test_groups_without_a_lesson_are_skipped_and_change_nothing(passes: bool, name: str, tmp_path: Path) -> None:
    module = grpo(judge=TextJudge(lambda _: passes), optimization=Optimization(lr=1e-2, weight_decay=0.5, warmup=0.0))
    before = [p.detach().clone() for p in module.policy.model.parameters()]
    watch = run(tmp_path, module, 3)
    assert module.trainer.global_step == 3  # counted all the same, or a policy that is done would train for ever
    assert all(torch.equal(a, b) for a, b in zip(before, module.policy.model.parameters(), strict=True))
    assert watch.logged[-1][f"rlvr/{name}"] == watch.logged[-1]["rlvr/groups_skipped"] == 1
    assert watch.logged[-1]["rlvr/answers_trained"] == 0
    assert "rlvr/loss" not in watch.logged[-1]


def test_a_shaped_reward_does_not_train_a_group_of_failures_unless_asked(tmp_path: Path) -> None:
    shaped = VerifierReward(overlong_buffer=LIMIT, overlong_penalty=0.5)
    for gate, trained in (("outcome", False), ("reward", True)):
        module = grpo(judge=TextJudge(lambda _: False), reward=shaped, gate=gate, mask_truncated=False)
        watch = run(tmp_path, module, 1)
        assert (watch.logged[0]["rlvr/answers_trained"] > 0) == trained


def test_what_was_not_judged_is_no_reward_and_no_part_of_the_baseline(tmp_path: Path) -> None:
    module = grpo(ending_policy(seed=1), judge=TextJudge(broken="t"), mask_truncated=False, group_size=6)
    watch = run(tmp_path, module, 1)
    answers = [answer for group in watch.answers[0] for answer in group]
    internal = [answer for answer in answers if "t" in answer.completion.text]
    assert 0 < len(internal) < len(answers)
    assert all(answer.reward is None and answer.advantage is None for answer in internal)
    assert watch.logged[0]["rlvr/verdict_internal"] == len(internal)
    rewards = [answer.reward for answer in answers if answer.reward is not None]
    assert watch.logged[0]["rlvr/reward"] == pytest.approx(np.mean(rewards))
    for group in watch.answers[0]:
        with_one = [answer for answer in group if answer.advantage is not None]
        assert sum(float(answer.advantage[0]) for answer in with_one if answer.advantage is not None) == pytest.approx(
            0, abs=1e-6
        )


def test_truncated_answers_are_masked_but_stay_in_the_baseline(tmp_path: Path) -> None:
    watch = run(tmp_path, grpo(ending_policy(seed=1)), 1)
    answers = [answer for group in watch.answers[0] for answer in group]
    cut = [answer for answer in answers if answer.completion.finish == "length"]
    assert cut
    assert watch.logged[0]["rlvr/completions/clipped_ratio"] == pytest.approx(len(cut) / len(answers))
    trained = [a for a in answers if a.advantage is not None and a.completion.finish != "length"]
    assert watch.logged[0]["rlvr/answers_trained"] == len(trained)
    assert any(answer.advantage is not None for answer in cut)  # it was given one by its group, and is not trained on


def test_segment_credit_is_that_of_the_segments(tmp_path: Path) -> None:
    """Whatever shares no beginning has leave-one-out credit."""
    watch = run(tmp_path, grpo(ending_policy(seed=1), credit="segment", mask_truncated=False), 1)
    for group in watch.answers[0]:
        rewards = [float(even(answer.completion.text)) for answer in group]
        for i, answer in enumerate(group):
            if answer.advantage is not None:
                others = np.delete(rewards, i)
                assert float(answer.advantage[0]) == pytest.approx(rewards[i] - others.mean())


# ---- several steps on the same answers ------------------------------------------------------------------------------


def test_minibatches_take_several_steps_and_their_ratios_move(tmp_path: Path) -> None:
    module = grpo(minibatches=2, updates_per_batch=2, mask_truncated=False, clip_low=0.01, clip_high=0.01)
    watch = run(tmp_path, module, 4)
    assert len(watch.logged) == 1
    assert module.trainer.global_step == 4
    clipped = watch.logged[0]["rlvr/clip_ratio/low_mean"] + watch.logged[0]["rlvr/clip_ratio/high_mean"]
    assert clipped > 0
    assert watch.logged[0]["rlvr/logp_gap_mean"] < 1e-5  # of the weights that sampled, not of those of today


def test_minibatches_hold_every_group_once(tmp_path: Path) -> None:
    module = grpo(minibatches=2, mask_truncated=False, optimization=Optimization(lr=1e-12, warmup=0.0, clip=None))
    watch = run(tmp_path, module, 2)
    whole = run(tmp_path, grpo(mask_truncated=False, optimization=module.policy.optimization), 1)
    kept = [group for group in watch.answers[0] if group[0].advantage is not None]
    tokens = [sum(len(answer.completion.ids) for answer in group) for group in sorted(kept, key=of_problem)]
    share = [sum(tokens[part::2]) / sum(tokens) for part in (0, 1)]
    together = [
        sum(part * g for part, g in zip(share, both, strict=True) if g is not None)
        for both in zip(*watch.gradients, strict=True)
    ]
    assert_close(together, whole.gradients[0])  # type: ignore[arg-type]


def of_problem(group: list[Answer]) -> str:
    return group[0].task.problem.id


# ---- staleness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("staleness", [1, 2])
def test_staleness_is_bounded_and_its_ratios_are_right(staleness: int, tmp_path: Path) -> None:
    module = grpo(staleness=staleness, mask_truncated=False)
    watch = run(tmp_path, module, 5)
    assert [row["rlvr/staleness"] for row in watch.logged] == [min(i, staleness) for i in range(5)]
    fresh = run(tmp_path, grpo(mask_truncated=False), 5)
    for name, ids in texts(watch).items():  # the first steps are sampled by the weights of the start
        assert (texts(fresh)[name] == ids) == (name.endswith(" 0")), name
    assert all(row["rlvr/logp_gap_mean"] < 1e-5 for row in watch.logged)
    assert [set(map(of_problem, groups)) for groups in watch.answers] == [
        set(map(of_problem, groups)) for groups in fresh.answers
    ]
    again = run(tmp_path, grpo(staleness=staleness, mask_truncated=False), 5)
    assert texts(again) == texts(watch)


def test_programs_are_judged_before_their_step_comes(tmp_path: Path) -> None:
    judge = TextJudge()
    run(tmp_path, grpo(judge=judge, staleness=1), 2)
    assert judge.seen == 3 * 3 * 4  # three steps of three groups of four


# ---- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"advantage": "std", "minibatches": 2}, {"staleness": 1, "credit": "segment"}]
)
def test_the_reward_rises(settings: dict[str, Any], tmp_path: Path) -> None:
    judge = TextJudge(lambda text: text.count("e") >= 2)
    faster = Optimization(lr=1e-2, warmup=0.0)
    module = grpo(group_size=8, mask_truncated=False, judge=judge, optimization=faster, **settings)
    run(tmp_path, module, 20 * module.minibatches)
    rewards = module.history["reward"]
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.3


def test_next_token_prediction_is_not_trained_on_tasks(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"BasePolicy .* not on those of SmallData"):
        run(tmp_path, ending_policy(), 1)  # type: ignore[arg-type]


# ---- for people -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"group_size": 1}, "group_size"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 10**6}, "max_new_tokens"),
        ({"temperature": 0}, "temperature"),
        ({"clip_low": 1.0}, "clip_low"),
        ({"beta": -0.1}, "beta"),
        ({"importance_cap": 0}, "importance_cap"),
        ({"staleness": -1}, "staleness"),
        ({"advantage": "median"}, "advantage"),
        ({"normalise": "tokens"}, r"normalise.*'token'"),
        ({"credit": "segments"}, r"credit.*'segment'"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        grpo(**settings)


def test_results_and_summary_say_what_was_done(tmp_path: Path) -> None:
    module = grpo()
    run(tmp_path, module, 3)
    results = module.results()
    assert results["stage"] == "rlvr"
    assert len(results["history"]["reward"]) == 3
    assert results["settings"]["group_size"] == 4
    assert any("reward" in line for line in module.summary_lines(module.trainer))


# ---- how a run ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "total"),
    [
        ({"max_epochs": 3, "steps": -1}, 12),
        ({"max_epochs": 3, "steps": 6}, 6),
        ({"max_epochs": 2, "steps": 100}, 8),
    ],
    ids=str,
)
def test_the_learning_rate_is_spread_over_the_steps_there_will_be(
    limits: dict[str, Any], total: int, tmp_path: Path
) -> None:
    falling = Optimization(lr=1e-3, warmup=0.0, schedule="linear", final=0.0)
    watch = run(tmp_path, grpo(minibatches=2, optimization=falling), **limits)
    rates = [np.mean([falling.lr_at(2 * batch + i, total) for i in (0, 1)]) for batch in range(total // 2)]
    assert [row["rlvr/lr"] for row in watch.logged] == pytest.approx(rates)


def test_a_run_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"trainer.max_steps=-1 and trainer.max_epochs=-1"):
        run(tmp_path, grpo(), -1)


@pytest.mark.parametrize("how", [RuntimeError, KeyboardInterrupt])
def test_the_judge_ends_with_a_run_that_fails(how: type[BaseException], tmp_path: Path) -> None:
    class Failing(EngineBackend):
        def sample(self, *arguments: Any) -> Any:
            raise how

    judge, before = TextJudge(), signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit if how is KeyboardInterrupt else how):
        run(tmp_path, grpo(judge=judge, backend=Failing()))
    signal.signal(signal.SIGINT, before)  # Lightning ignores further ones
    assert judge.closed
