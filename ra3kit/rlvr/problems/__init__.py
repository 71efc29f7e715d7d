"""Readers of training sets: every record is a problem, or is rejected for a reason that is counted."""
