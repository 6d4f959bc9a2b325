"""What is in a store: counts, distributions and a few histories, for a person or as JSON."""
