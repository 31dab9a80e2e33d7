"""A table of one index of one's own."""

OURS = """\
medium = "air"
reference = "our paper"

[[index]]
name = "Ours"
kind = "atomic"
units = "Angstrom"
blue = [6000.0, 6010.0]
feature = [6010.0, 6030.0]
red = [6030.0, 6040.0]
"""
