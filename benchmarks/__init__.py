"""What reading, ablating and comparing networks cost, as a ratio to a plain forward pass."""
