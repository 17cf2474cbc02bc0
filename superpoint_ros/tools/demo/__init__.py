"""`superpoint demo`: a camera sequence or a bag, played to the node, and what came back."""
