"""What is measured of a clip: pure functions of its frames [n, H, W, 3] uint8."""
