"""A run's model as a folder that needs nothing of this project."""
