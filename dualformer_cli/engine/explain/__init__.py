"""Why the model says so: Grad-CAM, deletion, and the heat over time."""
