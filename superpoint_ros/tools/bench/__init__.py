"""`superpoint bench`: how fast this machine extracts, matches and publishes, and how exactly."""
