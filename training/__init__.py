"""What is learnt from a survey: frames, denoisers, their training and their verdict."""
