"""Files, processes and words: what every room above may use and nothing of videos or models."""
