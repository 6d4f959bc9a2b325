"""Makes a model learn on many devices: the only place that knows process groups."""
