"""What is done to a survey: the stages, the queries and the specmill command."""
