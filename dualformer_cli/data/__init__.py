"""The kitchen: files on disk become batches of clips."""
