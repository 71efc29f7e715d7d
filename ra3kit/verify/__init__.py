"""Judging model-written Python: a sandbox that contains it, and judges it cannot reach."""
