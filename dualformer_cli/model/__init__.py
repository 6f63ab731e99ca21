"""The living room: a batch of clips becomes logits."""
