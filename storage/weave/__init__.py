"""What only the reader of WEAVE needs."""
