"""The engine for logs that one machine is too slow for: the embedded one's functions as tasks of a Spark cluster."""
