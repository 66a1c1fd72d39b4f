"""What several test modules share: references computed naively, small models, images."""
