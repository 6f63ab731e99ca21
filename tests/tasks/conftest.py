"""The fixtures of toy_training.py, which tests of the engine and of tasks share."""

from toy_training import *  # noqa: F403
