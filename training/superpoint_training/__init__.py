"""Offline training of SuperPoint, the paper's way: Synthetic Shapes, MagicPoint, Homographic
Adaptation, SuperPoint.

DeTone, Malisiewicz, Rabinovich, "SuperPoint: Self-Supervised Interest Point Detection and
Description", 2018 (arXiv 1712.07629). Needs no ROS; the command is `superpoint-train`.
"""
