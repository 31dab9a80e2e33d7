"""Clusters, one module each; deploy/backend.py is their contract."""
