"""`superpoint play`, and the recorder of replay.launch.py: bags to and from DDS."""
