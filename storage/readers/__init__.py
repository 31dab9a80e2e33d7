"""Survey formats, one module each; storage/reader.py is their contract."""
