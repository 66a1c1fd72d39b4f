"""What the pages are made with: set-up, figure style, interactive figures, and the build."""
