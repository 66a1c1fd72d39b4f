"""What is done to a model, one module for each command, and the experiments that need no model."""
