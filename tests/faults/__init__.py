"""Faults under way through the engine: what a run becomes of which something was killed."""
