"""Tools for tests, the kit's own and those of components written by others."""

from ra3kit.testing.conformance import *  # noqa: F403
from ra3kit.testing.conformance import __all__ as __all__
