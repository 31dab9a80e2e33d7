"""Damaged survey files by the thousand, and what the readers make of them."""
