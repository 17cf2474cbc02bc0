"""Small bags."""

from bag_samples import make_bag, make_images  # noqa: F401
