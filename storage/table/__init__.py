"""What only the reader of tables needs."""
