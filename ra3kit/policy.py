"""The base policy pi: a causal language model trained by next-token prediction on packed rows.

Alone it is the NTP baseline (stage ntp); inside `RA3Module` it is pi, whose M-step is the same next-token prediction on
the bootstrapped trajectories. The ids it trains on are those of the trajectories, never re-encoded text.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from ra3kit.data.packing import PackedBatch, StepBatch, idle_row, pack_rows
from ra3kit.data.tokenizer import TokenizerSpec, resolve_tokenizer
from ra3kit.data.trajectory import THOUGHT, Trajectory
from ra3kit.errors import ModelError, RecipeError
from ra3kit.loading import check_model, fresh_model, load_model
from ra3kit.loss import summed_nats
from ra3kit.metrics import TokenRatio
from ra3kit.models import base_model, merge_adapters, unwrapped
from ra3kit.optimize import Optimization, average_gradients, backward, clip_gradients, set_lr, steps_of_run
from ra3kit.ranges import check_number
from ra3kit.ranks import summed
from ra3kit.rollout.forward import packed_hidden, target_logps
from ra3kit.sharding import check_whole, gathered, is_sharded, run, shard_models, whole_state_dict

MAX_RANK = 65_536


@dataclass
class LoRA:
    """Low-rank adapters through peft (an extra: `pip install ra3kit[peft]`).

    Args:
        rank: of the adapters, 1 to 65,536.
        alpha: scale, >= 1; the update is multiplied by alpha / rank.
        dropout: on the adapters' input, in [0, 1).
        targets: module names, or "all-linear".
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        check_number("lora.rank", self.rank, least=1, most=MAX_RANK, whole=True)
        check_number("lora.alpha", self.alpha, least=1, whole=True)
        check_number("lora.dropout", self.dropout, least=0, below=1)


@dataclass(frozen=True)
class RowLoss:
    """Summed nats of one packed row, split by what the tokens are; the sums carry gradients.

    Args:
        code: nats of code and end tokens; thought: nats of thought tokens.
        code_tokens, thought_tokens: how many tokens each sum is over.
    """

    code: Tensor
    thought: Tensor
    code_tokens: int
    thought_tokens: int


class BasePolicy(L.LightningModule):
    """Next-token prediction with a causal LM.

    The contract, which all of the kit relies on and `ra3kit.testing.check_policy` checks: `score` does not depend on
    what is scored together; `row_loss` is minus the summed score, split into code and thoughts, with gradients;
    `snapshot` is a frozen copy; `configure_optimizers` holds every trained weight; `save` writes a folder that
    transformers alone loads to the same model.

    Args:
        model: hub id or folder of a pretrained model; or null with
        config: a Hugging Face config for a fresh model, `model_type` included (vocab_size comes from the tokenizer).
        tokenizer: hub id, folder or `TokenizerSpec`; null takes the one beside the pretrained model.
        optimization: AdamW and schedule, over one phase.
        lora: train low-rank adapters instead of all weights.
        dtype: of the weights; "auto" keeps the pretrained ones.
        activation_checkpointing: recompute activations in the backward pass; less memory, about a third more time.

    Raises:
        ModelError: neither or both of model and config; not loadable; vocabulary smaller than the tokenizer's; an
            architecture whose attention cannot be replaced.
    """

    def __init__(
        self,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: str | TokenizerSpec | None = None,
        optimization: Optimization | None = None,
        lora: LoRA | None = None,
        dtype: Literal["float32", "bfloat16", "auto"] = "float32",
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        self.automatic_optimization = False
        if (model is None) == (config is None):
            raise ModelError(f"give exactly one of model={model!r} (pretrained) and config={config!r} (fresh)")
        source = tokenizer if tokenizer is not None else model
        if source is None:
            raise ModelError("a fresh model (config=...) needs a tokenizer: a folder, a hub id or a TokenizerSpec")
        self.tokenizer: PreTrainedTokenizerBase = resolve_tokenizer(source)
        self.optimization = optimization or Optimization()
        self.model: torch.nn.Module = (
            load_model(model, dtype) if model is not None else fresh_model(config, self.tokenizer)
        )
        check_model(base_model(self.model), self.tokenizer)
        if activation_checkpointing:
            base_model(self.model).activation_checkpointing_enable({"use_reentrant": False})
        if lora is not None:
            self.model = _with_lora(self.model, lora)
        self.held_out = TokenRatio()

    @property
    def max_positions(self) -> int | None:
        """Most tokens of a snippet: the model's context; None where its config names none."""
        return getattr(base_model(self.model).config, "max_position_embeddings", None)

    # ---- training -------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Shard the weights where the strategy says so."""
        shard_models(self, [self.model])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimization.optimizer(self.parameters())

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One optimizer step of NTP; logs `ntp/*`."""
        if not isinstance(batch, StepBatch):
            given = type(getattr(self.trainer, "datamodule", None)).__name__
            raise RecipeError(
                f"data: BasePolicy is trained on the steps of TrajectoryDataModule, not on those of {given}."
            )
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        total = steps_of_run(self.trainer)
        lr = self.optimization.lr_at(self.trainer.global_step, total)
        logs = self.fit_step(self, optimizer, batch.micro, batch.world_trained_tokens, lr, batch.world_rows)
        self.log_dict({f"ntp/{name}": value for name, value in logs.items()})
        self.log("loss", logs["loss"], prog_bar=True, logger=False)

    def fit_step(
        self,
        owner: L.LightningModule,
        optimizer: Any,
        rows: Sequence[PackedBatch],
        world_tokens: int,
        lr: float,
        world_rows: int | None = None,
    ) -> dict[str, float]:
        """Accumulate the rows' gradients, normalised by tokens, clip, and step. Every rank takes part.

        Args:
            owner: the LightningModule that a trainer fits (this one, or the RA3Module it is part of).
            optimizer: over this policy's parameters.
            rows: this rank's packed rows.
            world_tokens: trained tokens of all ranks' rows together.
            lr: learning rate of this step.
            world_rows: most rows on any rank; None is as many as here.

        Returns:
            loss, code_loss, thought_loss (nats per token; thought_loss nan without thoughts), grad_norm, lr, tokens: of
            all ranks together, the same on each.
        """
        # ranks' gradients are averaged, so each contributes its sum times the number of ranks
        scale = owner.trainer.world_size / world_tokens
        optimizer.zero_grad()
        sums = np.zeros(4)
        for row in rows:
            loss = self.row_loss(row)
            backward(owner, (loss.code + loss.thought) * scale)
            sums += [float(loss.code.detach()), float(loss.thought.detach()), loss.code_tokens, loss.thought_tokens]
        if is_sharded(self.model):  # every rank makes the same number of passes
            for _ in range(len(rows), world_rows or len(rows)):
                backward(owner, self.row_loss(idle_row(owner.device)).code * 0.0)
        average_gradients(optimizer)
        norm = clip_gradients(optimizer, self.optimization.clip)
        set_lr(optimizer, lr)
        optimizer.step()
        names = ("code", "thought", "code_tokens", "thought_tokens")
        code, thought, code_tokens, thought_tokens = summed(dict(zip(names, sums.tolist(), strict=True))).values()
        return {
            "loss": (code + thought) / (code_tokens + thought_tokens),
            "code_loss": code / code_tokens,
            "thought_loss": thought / thought_tokens if thought_tokens else float("nan"),
            "grad_norm": float(norm),
            "lr": lr,
            "tokens": code_tokens + thought_tokens,
        }

    def row_loss(self, row: PackedBatch) -> RowLoss:
        """Next-token cross-entropy of a packed row in nats, summed, split into code and thoughts."""
        targets, kinds = row.ids[1:], row.kinds[1:]
        is_trained = row.positions[1:] > 0  # the first token of a sequence is not predicted from the one before it
        is_thought = is_trained & (kinds == THOUGHT)
        is_code = is_trained & ~is_thought
        code_tokens, thought_tokens = int(is_code.sum()), int(is_thought.sum())

        def nats() -> tuple[Tensor, Tensor]:
            hidden = packed_hidden(self.model, row.ids, row.positions, row.lengths)[:-1]
            head = base_model(self.model).get_output_embeddings()
            code = _summed_nats(head, hidden[is_code], targets[is_code])
            if not thought_tokens:
                return code, hidden.new_zeros(())
            return code, _summed_nats(head, hidden[is_thought], targets[is_thought])

        code, thought = run(self.model, nats)
        return RowLoss(code, thought, code_tokens, thought_tokens)

    def validation_step(self, batch: list[Trajectory], batch_idx: int) -> None:
        """Cross-entropy of held-out code, nats per code token; logs `eval/ntp/plain_ce`."""
        with gathered(self.model):
            for logp in self.score(batch):
                self.held_out.update(torch.tensor(-logp.sum()), len(logp))
        self.log("eval/ntp/plain_ce", self.held_out, prog_bar=True, on_epoch=True, batch_size=len(batch))

    # ---- scoring --------------------------------------------------------------------------------------------------

    def score(self, trajectories: Sequence[Trajectory], tokens_per_forward: int = 4096) -> list[np.ndarray]:
        """Raw next-token log-probabilities of each trajectory, float64 [t - 1] nats, log-softmax in float32."""
        return score(self.model, trajectories, tokens_per_forward)

    def snapshot(self) -> torch.nn.Module:
        """A frozen copy of the weights in evaluation mode, the pi that an E-step's rewards come from."""
        return copy.deepcopy(self.model).requires_grad_(False).eval()

    # ---- saving and planning --------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write an ordinary Hugging Face folder (LoRA merged into the weights) that loads without this package.

        Where the weights are sharded every rank must call it; the first one writes.
        """
        model = self.model
        if is_sharded(model):
            weights = whole_state_dict(model)
            if not weights:  # not the first rank
                return
            with torch.device("meta"):
                shell = AutoModelForCausalLM.from_config(base_model(model).config)
            shell.save_pretrained(folder, state_dict=weights)
        else:
            own = model if unwrapped(model) is model else copy.deepcopy(model)  # merging changes the weights
            base_model(merge_adapters(own)).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def plan(self, shards: int = 1) -> dict[str, Any]:
        """Parameters, and memory of one process, for `fit --dry-run`.

        Args:
            shards: processes that share the weights.
        """
        memory: dict[str, Any] = vars(training_memory(self.model, shards))
        if shards > 1:
            memory |= {"gathered for scoring": gathered_bytes(self.model, self._trainer)}
        return {"parameters": parameter_counts(self.model), "memory": memory}


def score(
    model: torch.nn.Module, trajectories: Sequence[Trajectory], tokens_per_forward: int = 4096
) -> list[np.ndarray]:
    """Raw next-token log-probabilities under `model` of each trajectory: float64 [t - 1], nats, without gradient."""
    check_whole(model)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    out: list[np.ndarray] = []
    with torch.inference_mode():
        for row in pack_rows(trajectories, tokens_per_forward):
            row = row.to(device)
            hidden = packed_hidden(model, row.ids, row.positions, row.lengths)
            logps = target_logps(model, hidden[:-1], row.ids[1:]).double().cpu().numpy()
            ends = np.cumsum(row.lengths)
            out += [logps[end - length : end - 1] for end, length in zip(ends, row.lengths, strict=True)]
    model.train(was_training)
    return out


def _summed_nats(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy without ever holding all logits; accumulated in float32."""
    return summed_nats(hidden, head.weight, getattr(head, "bias", None), targets)


def _with_lora(model: torch.nn.Module, lora: LoRA) -> torch.nn.Module:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ModelError("lora needs peft: pip install 'ra3kit[peft]'") from error
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)


def parameter_counts(model: torch.nn.Module) -> dict[str, int]:
    """All and trainable parameters (tied ones counted once)."""
    parameters = list(model.parameters())
    return {
        "total": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a model's weights, gradients and AdamW moments while it is trained."""

    weights: int
    gradients: int
    moments: int


def training_memory(model: torch.nn.Module, shards: int = 1) -> TrainingMemory:
    """What training a model keeps in the memory of one of `shards` processes, activations aside."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return TrainingMemory(weights // shards, trained // shards, 2 * trained // shards)


def gathered_bytes(model: torch.nn.Module, trainer: L.Trainer | None) -> int:
    """Bytes of the whole copy that stands in for a sharded model (`ra3kit.sharding.gathered`)."""
    halves = trainer is not None and trainer.precision == "bf16-mixed"
    return sum(p.numel() * (2 if halves else p.element_size()) for p in model.parameters())
