"""What `python -m experiments` can be asked: one module for each command, with an `add` that adds
its parser and sets `run`. They only parse arguments; what they share is in `options`."""
