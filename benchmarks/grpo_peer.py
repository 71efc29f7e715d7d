"""TRL's GRPOTrainer on a small model, offline: as the GRPO benchmark times it and as its test compares gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
from grpo_steps import Outcome, Ticks
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

Rewards = Callable[[Sequence[str], Sequence[str]], Sequence[float | None]]
"""Of prompts and completions as text, the reward of each completion."""


class Watched(GRPOTrainer):
    """A GRPOTrainer whose sampling is on a clock."""

    ticks: Ticks

    def _generate(self, prompts: list[Any]) -> Any:
        out = self.ticks.sampling(lambda: super(Watched, self)._generate(prompts))
        self.ticks.sampled += sum(len(ids) for ids in out[1])
        return out


class Notes(TrainerCallback):
    """Ticks at the end of a step; keeps gradients where asked for."""

    def __init__(self, outcome: Outcome, keep: bool):
        self.outcome, self.keep = outcome, keep

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.keep:
            self.outcome.gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.outcome.ticks.tick()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "grad_norm" in logs:
            self.outcome.logs.append(dict(logs))


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    rewards: Rewards,
    folder: Path,
    given: Sequence[Sequence[int]] | None = None,
    keep: bool = False,
    reference: Path | None = None,
    **settings: Any,
) -> Outcome:
    """Train with TRL; prompts are taken in their order.

    Args:
        model: to be trained, in place.
        prompts: of all steps; a step takes generation_batch_size / num_generations of them.
        given: sampled ids to train on in the place of sampling, `num_generations` for each prompt, in the order of the
            prompts; every generation takes the next ones.
        keep: keep gradients and weights.
        reference: folder of a model for the KL; TRL loads its own copy of it.
        settings: of GRPOConfig.
    """

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float | None]:
        return list(rewards(prompts, completions))

    waiting = list(given or ())

    def forced(prompts: list[str], trainer: Any) -> dict[str, Any]:
        taken = [list(waiting.pop(0)) for _ in prompts]
        return {"prompt_ids": tokenizer(list(prompts))["input_ids"], "completion_ids": taken, "logprobs": None}

    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "shuffle_dataset": False,
        "report_to": "tensorboard",
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 1,
    }
    if reference is not None:
        model.config._name_or_path = str(reference)
    trainer = Watched(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(**arguments | settings),
        train_dataset=datasets.Dataset.from_dict({"prompt": list(prompts)}),
        processing_class=tokenizer,
        rollout_func=forced if given is not None else None,
    )
    outcome = Outcome(Ticks())
    trainer.ticks = outcome.ticks
    trainer.add_callback(Notes(outcome, keep))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    if keep:
        outcome.weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    return outcome
