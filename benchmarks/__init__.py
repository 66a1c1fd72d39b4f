"""What reading a network costs, as a ratio to a plain forward pass in the same run."""
