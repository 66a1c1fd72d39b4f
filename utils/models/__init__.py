"""Models: where they come from (`zoo`) and what ours are made of (`architectures`)."""
