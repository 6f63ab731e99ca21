"""Training: loop, optimizer, losses, checkpoints, first weights, teachers and token labels."""
