"""What only the reader of DESI needs."""
