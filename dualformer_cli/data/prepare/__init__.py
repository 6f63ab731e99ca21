"""Videos become a prepared dataset: checked, converted, split, listed."""
