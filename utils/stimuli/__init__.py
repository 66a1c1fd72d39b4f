"""Images and recordings: generated objects, photographs, folders, psychophysics, V1 responses."""
