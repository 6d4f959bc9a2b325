"""Exact evaluation: ranks, metrics, intervals and the baselines that a model has to beat."""
