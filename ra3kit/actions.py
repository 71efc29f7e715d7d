"""What one primitive action is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    text: str
    may_think: bool


class ActionSegmenter(ABC):
    @abstractmethod
    def segment(self, text: str) -> list[Action]: ...
