"""Where a run is kept: its folder, and its copy in an object store."""
