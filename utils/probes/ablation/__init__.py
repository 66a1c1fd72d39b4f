"""Changing a forward pass: what is removed (`specs`), how (`edits`), at what cost (`plans`)."""
