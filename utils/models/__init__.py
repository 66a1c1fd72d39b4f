"""Models: where they come from (`zoo`), what they are made of (`architectures`), how ours were
trained (`training`)."""
