"""An export behind HTTP: recommendations by raw id, events, metrics."""
