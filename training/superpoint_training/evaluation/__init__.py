"""How good keypoints, descriptors and homographies are: the paper's metrics, on known pairs."""
