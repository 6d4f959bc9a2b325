"""Every choice of a run, typed; imports nothing of ours."""
