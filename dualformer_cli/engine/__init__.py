"""The workshop: runs the model over the data."""
