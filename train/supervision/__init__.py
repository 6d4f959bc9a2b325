"""Ranks: started, watched, stopped and ended."""
