"""Nouns to batches: datasets, wedge-safe augmentation, splits by tomogram."""
