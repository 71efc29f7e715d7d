"""Sharded training with FSDP2: each process keeps a part of every weight, its gradient and its AdamW moments.

`FullyShardedStrategy` is Lightning's `ModelParallelStrategy` with one data-parallel dimension as wide as the run. The
modules' `configure_model` shards their language models with `shard_models`; from then on there are two ways to use one:

- `run(model, function)`: `function()` as a forward of the model, each layer gathered when it is needed, for passes with
  gradients. Every rank must make the same number of them, so a rank with fewer rows adds idle ones.
- `gathered(model)`: a whole copy of the weights on every rank, for rollouts, scoring and generation. Inside it ranks do
  not wait for each other, whatever their rows need: a rollout makes hundreds of small calls, and to gather the layers
  for each of them would cost far more than the memory of one copy (in bfloat16 under bf16-mixed).

A model that is not sharded passes through both unchanged.
"""

from __future__ import annotations

import copy
import hashlib
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ra3kit.errors import ModelError, RecipeError
from ra3kit.models import WHOLE, unwrapped

R = TypeVar("R")
_SHELLS: weakref.WeakKeyDictionary[torch.nn.Module, tuple[PreTrainedModel, torch.dtype | None]] = (
    weakref.WeakKeyDictionary()
)
"""Of every sharded model a shell of the same layers without weights, and the dtype its gathered weights have."""


class FullyShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes of the run, on GPUs or CPUs.

    Args:
        data_parallel_size: processes that share the weights; "auto" is all of them.
        the other arguments as in Lightning's `ModelParallelStrategy`.
    """

    def __init__(self, data_parallel_size: Any = "auto", tensor_parallel_size: int = 1, **kwargs: Any):
        super().__init__(data_parallel_size, tensor_parallel_size, **kwargs)

    def setup_environment(self) -> None:
        if self._data_parallel_size == "auto":
            self._data_parallel_size = self.num_processes * self.num_nodes
        super().setup_environment()


def shard_models(owner: L.LightningModule, models: Iterable[torch.nn.Module]) -> None:
    """Shard language models over the ranks when the owner's trainer has a ModelParallelStrategy; else do nothing.

    To be called in the owner's `configure_model`; a model that is sharded already is left as it is.

    Raises:
        RecipeError: the strategy also asks for tensor parallelism, which no model here is written for, or shards in a
            way of its own (FSDP1, DeepSpeed), inside which rollouts and scoring cannot gather the weights.
    """
    mesh = owner.device_mesh
    if mesh is None:
        name = "" if owner._trainer is None else type(owner._trainer.strategy).__name__
        if name in ("FSDPStrategy", "DeepSpeedStrategy"):
            raise RecipeError(
                f"trainer.strategy: {name} is not supported: inside its wrapper of the module, ranks with different "
                "rollouts would wait for each other for ever. Use FSDP2: ra3kit.sharding.FullyShardedStrategy."
            )
        return
    if mesh["tensor_parallel"].size() > 1:
        raise RecipeError(
            f"trainer.strategy: tensor_parallel_size={mesh['tensor_parallel'].size()} is not supported, the weights "
            "are sharded over all processes. Use class_path: ra3kit.sharding.FullyShardedStrategy, or set "
            "tensor_parallel_size: 1 and data_parallel_size to the number of processes."
        )
    dtype = torch.bfloat16 if owner.trainer.precision == "bf16-mixed" else None
    for model in {id(model): model for model in models}.values():
        if not is_sharded(model):
            shard(model, mesh["data_parallel"], dtype)


def shard(model: torch.nn.Module, mesh: DeviceMesh, dtype: torch.dtype | None = None) -> None:
    """Shard a causal language model in place: each decoder layer is a unit, the rest (embeddings, head) another.

    Args:
        model: a Hugging Face causal LM, or a peft wrap of one.
        mesh: one dimension.
        dtype: of the gathered weights; None keeps that of the shards. Gradients are always summed in float32.
    """
    hf: Any = unwrapped(model)
    without_weights = {id(p): torch.nn.Parameter(p.detach().to("meta"), False) for p in hf.parameters()}
    _SHELLS[hf] = copy.deepcopy(hf, without_weights).eval(), dtype
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in getattr(hf, hf.base_model_prefix).layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(hf, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    hf.run = types.MethodType(_run, hf)
    register_fsdp_forward_method(hf, "run")


def _run(self: torch.nn.Module, function: Callable[[], Any]) -> Any:
    return function()


def is_sharded(model: torch.nn.Module) -> bool:
    """True after `shard`."""
    return unwrapped(model) in _SHELLS


def run(model: torch.nn.Module, function: Callable[[], R]) -> R:
    """`function()` with the model's weights at hand; the tensors it returns, alone or in a tuple, may carry gradients.

    A collective where the model is sharded (and not gathered): every rank must take part.
    """
    hf: Any = unwrapped(model)
    return hf.run(function) if hf in _SHELLS and hf not in WHOLE else function()


@contextmanager
def gathered(*models: torch.nn.Module) -> Iterator[None]:
    """A whole copy of each sharded model's weights, which stands in for it (`ra3kit.models.base_model`), frozen.

    Entering is a collective, nothing after it is. Models gathered already, or not sharded, are left as they are.
    """
    own = [hf for hf in {unwrapped(model): None for model in models} if hf in _SHELLS and hf not in WHOLE]
    for hf in own:
        shell, dtype = _SHELLS[hf]
        weights = _whole_weights(hf, dtype)
        shell.load_state_dict(weights, assign=True)
        WHOLE[hf] = shell.to(next(iter(weights.values())).device)  # type: ignore[arg-type]  # buffers, on a GPU
    try:
        yield
    finally:
        for hf in own:
            shell = WHOLE.pop(hf)  # and give the memory back
            shell.load_state_dict({name: value.to("meta") for name, value in shell.state_dict().items()}, assign=True)


def _whole_weights(hf: torch.nn.Module, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """Every weight in one piece, by name; tied ones are gathered once."""
    parameters = dict(hf.named_parameters(remove_duplicate=False))
    parts = {id(p): p.detach() if dtype is None else p.detach().to(dtype) for p in parameters.values()}
    whole = {key: part.full_tensor() if isinstance(part, DTensor) else part for key, part in parts.items()}
    return {name: whole[id(p)] for name, p in parameters.items()}


def check_whole(model: torch.nn.Module) -> None:
    """Refuse to read a sharded model that is not gathered.

    Raises:
        ModelError: the weights on this rank are shards.
    """
    hf = unwrapped(model)
    if hf in _SHELLS and hf not in WHOLE:
        raise ModelError(
            f"{type(hf).__name__} is sharded: rollouts, scoring and generation need "
            "`with ra3kit.sharding.gathered(model):` around them, on every rank"
        )


def whole_state_dict(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The whole weights of a sharded model in main memory, tied ones once; on rank 0, empty elsewhere. A collective."""
    hf: Any = unwrapped(model)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    tied = set(hf._tied_weights_keys or ()) if hf.config.tie_word_embeddings else set()
    weights: dict[str, Any] = get_model_state_dict(hf, options=options)
    return {name: value for name, value in weights.items() if name not in tied}


def fingerprint(model: torch.nn.Module) -> str:
    """A hash of a model's weights, 16 hex digits; of sharded ones too, where every process must call it."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in model.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        digest.update(name.encode())
        digest.update(whole.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
