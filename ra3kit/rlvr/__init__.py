"""GRPO post-training from verifiable rewards: problems, sampling, judging, rewards, losses, and their module."""
