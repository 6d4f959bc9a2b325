"""Exact evaluation: ranks, metrics, intervals and the floors that a model has to beat."""
