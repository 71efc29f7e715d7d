"""Tools for tests, the kit's own and those of components written by others."""
