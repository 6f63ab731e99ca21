"""Files, disk, locks, worker processes and words: nothing of videos or models. Opened by all rooms above."""
