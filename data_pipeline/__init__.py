"""From logs to a store, and from a store to batches; knows nothing of models."""
