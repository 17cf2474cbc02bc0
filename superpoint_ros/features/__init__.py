"""Images to keypoints and descriptors, to matches, to homographies; numpy in, numpy out."""
