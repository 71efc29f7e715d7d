"""The teacher-forced rollout engine: slots, attention, sampling, and free generation."""

from ra3kit.rollout.engine import Engine
from ra3kit.rollout.jobs import Completion, Rollout, line_logps

__all__ = ["Completion", "Engine", "Rollout", "line_logps"]
