"""Why the model says so: Grad-CAM, deletion, the heat over time, classes of tokens."""
