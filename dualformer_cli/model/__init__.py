"""The network: a batch of clips becomes logits. Weights from files become its tensors. Opened by engine and tasks."""
