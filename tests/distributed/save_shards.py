"""One rank of a two-process test: shards a policy, saves a checkpoint with the other, and the gathered weights alone.

python -m torch.distributed.run --nproc-per-node 2 save_shards.py RUN
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.distributed as dist
from small_run import save
from torch.distributed.device_mesh import init_device_mesh

from ra3kit.build import build_part
from ra3kit.policy import BasePolicy
from ra3kit.recipe import load
from ra3kit.sharding import shard, whole_state_dict

if __name__ == "__main__":
    torch.set_num_threads(1)
    run = Path(sys.argv[1])
    dist.init_process_group("gloo")
    torch.manual_seed(7)  # the same weights on both
    policy = build_part(load(str(run / "recipe.yaml")), "model", BasePolicy)
    shard(policy.model, init_device_mesh("cpu", (2,)))
    save(run, policy, 3)
    whole = whole_state_dict(policy.model)
    if dist.get_rank() == 0:
        torch.save(whole, run / "gathered.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # a sharded model that outlives its group aborts the process at its end, one time in ten or so
