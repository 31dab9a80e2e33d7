"""Emission lines: the stellar continuum under them, their fit, and what follows from it."""
