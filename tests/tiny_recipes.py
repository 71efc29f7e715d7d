"""Recipes that train in seconds: next-token prediction and RA3 on a corpus in `code/`, and GRPO."""

from __future__ import annotations

from pathlib import Path

from ra3kit.testing.models import CORPUS

POLICY = """\
class_path: ra3kit.policy.BasePolicy
{pad}config: {{model_type: qwen2, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
{pad}  intermediate_size: 32, max_position_embeddings: 512, tie_word_embeddings: true}}
{pad}tokenizer: {{class_path: ra3kit.data.tokenizer.TrainedTokenizer, vocab_size: 300, corpus: code}}"""
DATA = """\
data:
  class_path: ra3kit.data.module.TrajectoryDataModule
  path: code
  max_tokens: 128
  tokens_per_step: 512
  tokens_per_forward: 512
  max_snippets: 6
  max_val_snippets: 2
trainer:
  accelerator: cpu
  devices: 1
  num_sanity_val_steps: 0
  enable_model_summary: false
  log_every_n_steps: 1
"""
NTP = f"model:\n  {POLICY.format(pad='  ')}\n{DATA}  max_epochs: 1\n  max_steps: 2\n"
RA3 = f"""\
model:
  class_path: ra3kit.abstraction.em.RA3Module
  policy:
    {POLICY.format(pad="    ")}
  posterior: {{class_path: ra3kit.abstraction.posterior.CausalPosterior, capacity: 512}}
  prior: {{class_path: ra3kit.abstraction.prior.FixedPenalty, c: 0.5, scale: line_sum}}
  learner: {{class_path: ra3kit.abstraction.learner.AbstractionLearner, scale: line_sum, rollouts: 2}}
{DATA}  max_epochs: -1
  reload_dataloaders_every_n_epochs: 1
  callbacks:
    - {{class_path: ra3kit.callbacks.em_switch.EMSwitch, warmup_steps: 1, e_steps: 1, m_steps: 1}}
    - {{class_path: ra3kit.callbacks.report.RunReport}}
"""
RLVR = f"""\
model:
  class_path: ra3kit.rlvr.grpo.GRPOModule
  policy:
    {POLICY.format(pad="    ")}
  reward: {{class_path: ra3kit.rlvr.rewards.VerifierReward, kind: binary}}
  backend: {{class_path: ra3kit.rlvr.backend.EngineBackend, slots: 8}}
  judge: {{class_path: ra3kit.rlvr.judge.Judge, workers: 1}}
  group_size: 2
  max_new_tokens: 8
data:
  class_path: ra3kit.rlvr.data.RLVRDataModule
  path: ra3kit
  against: []
  prompts_per_step: 2
  max_problems: 4
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: -1
  max_steps: 2
  num_sanity_val_steps: 0
  enable_model_summary: false
  log_every_n_steps: 1
"""


def write_code(folder: Path, files: int = 8) -> Path:
    """Files of Python, alike but not the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(files):
        (folder / f"f{i}.py").write_text(CORPUS.replace("total", f"total_{i}"))
    return folder
