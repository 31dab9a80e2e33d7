"""What the mocks share: populations, templates, instruments and their noise."""
