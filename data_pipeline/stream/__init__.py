"""A store as batches."""
