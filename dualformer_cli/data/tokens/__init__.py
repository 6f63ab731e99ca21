"""Stored token labels: written by a teacher, looked up for a training clip."""
