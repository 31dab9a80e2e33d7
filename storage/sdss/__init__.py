"""What only the reader of SDSS needs."""
