"""The concepts that anything may be tuned on; all others are for tests. Fixed in
`assets/docs/protocol.md`.
"""

DEVELOPMENT_OBJECTS = ("cat", "butterfly", "rose", "car", "pizza", "sword", "hammer", "ghost")
DEVELOPMENT_STYLES = ("van gogh", "mosaic", "sketch", "neon", "pop art", "vintage")
DEVELOPMENT_FRESH = ("penguin", "pumpkin", "crab", "cake", "thermal")
"""Never shown to the denoiser; the other never-shown objects and style are for tests."""
