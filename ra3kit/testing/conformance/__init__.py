"""Conformance checkers: does a component of your own keep the contract of the class it stands in for?

Call one in a test or a notebook. It returns a `Report` of the clauses that hold, or raises `ConformanceError`, which
names the first one that is broken, what was seen, and where the contract stands.

>>> from ra3kit.actions import PythonStatements
>>> print(str(check_segmenter(PythonStatements())).splitlines()[0])
ra3kit.actions.PythonStatements keeps the contract of ra3kit.actions.ActionSegmenter
"""

from ra3kit.testing.conformance.backend import check_rollout_backend
from ra3kit.testing.conformance.callbacks import check_callback, check_em_switch
from ra3kit.testing.conformance.data import check_data_module, check_decontaminator, check_tokenizer_spec
from ra3kit.testing.conformance.learner import check_learner
from ra3kit.testing.conformance.policy import check_policy
from ra3kit.testing.conformance.posterior import check_posterior
from ra3kit.testing.conformance.prior import check_prior
from ra3kit.testing.conformance.report import Clause, Report
from ra3kit.testing.conformance.reward import check_reward
from ra3kit.testing.conformance.segmenter import check_segmenter
from ra3kit.testing.conformance.verifier import VerifierBackend, check_benchmark, check_verifier_backend

__all__ = [
    "Clause",
    "Report",
    "VerifierBackend",
    "check_benchmark",
    "check_callback",
    "check_data_module",
    "check_decontaminator",
    "check_em_switch",
    "check_learner",
    "check_policy",
    "check_posterior",
    "check_prior",
    "check_reward",
    "check_rollout_backend",
    "check_segmenter",
    "check_tokenizer_spec",
    "check_verifier_backend",
]
