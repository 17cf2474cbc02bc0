"""The floor everything stands on: the CNN, its weights files, and its outputs made keypoints."""
