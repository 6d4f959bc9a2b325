"""Recommendations of a trained run: the best items for users, for given histories, and for items."""
