"""Denoisers, one module each; training/model.py is their contract."""
