"""What reading, ablating and comparing networks costs, as a ratio to a plain forward pass."""
