"""Simulators with known truth, one module each; storage/mock.py is their contract."""
