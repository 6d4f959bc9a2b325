"""Causal attention over jagged histories, by device."""
