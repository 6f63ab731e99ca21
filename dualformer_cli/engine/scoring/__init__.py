"""Scores of videos: forward passes over views, their mean, evaluation of a list, metrics."""
