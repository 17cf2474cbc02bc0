"""The command line `superpoint` and what its commands are made of."""
