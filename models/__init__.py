"""Single-device torch modules; they know the batch, not where it comes from nor how many devices there are."""
