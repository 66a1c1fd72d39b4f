"""What the chapters share: the set-up of a run, the one figure style, interactive pictures."""
