"""What a survey is: its shape, its store, its files."""
