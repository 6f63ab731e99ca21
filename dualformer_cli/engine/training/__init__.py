"""Training: what a run is opened from, its loop and steps, what it saves and loads, and labels of tokens.

`loop.py` has the course of a run, `step.py` one step, `state.py` what a checkpoint
holds, `checkpoint_files.py` which files it is saved to and found in, `preflight.py` the dry run.
Tasks open `loop`, `preflight` and `lists`.
"""
