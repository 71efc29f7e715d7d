"""GRPO post-training from verifiable rewards: so far the readers of its problems."""
