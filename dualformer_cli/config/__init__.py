"""The plans: a preset plus overrides becomes one frozen RunConfig."""
