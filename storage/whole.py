"""Whole: a small file of text that is there as it was or as it is to be, wherever a kill falls."""

from pathlib import Path


def replace(file: Path, text: str) -> None:
    """Write a file in place of the one that is there, and its folder where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text)
    partial.replace(file)
