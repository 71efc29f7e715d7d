"""ra3kit: the Lightning-based experiment kit for RA3, Reasoning as Action Abstractions (arXiv 2509.25810)."""

__version__ = "0.1.0"
