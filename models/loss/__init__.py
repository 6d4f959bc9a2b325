"""What a predicted token is scored against: the whole catalogue, or sampled negatives."""
