"""The floor everything stands on: the CNN, its weights files, and what turns its outputs into keypoints."""
