"""Which concepts anything may be tuned on, and which are kept for tests: fixed once,
`assets/docs/protocol.md`.
"""

DEVELOPMENT_OBJECTS = ("cat", "butterfly", "rose", "car", "pizza", "sword", "hammer", "ghost")
DEVELOPMENT_STYLES = ("van gogh", "mosaic", "sketch", "neon", "pop art", "vintage")
DEVELOPMENT_FRESH = ("penguin", "pumpkin", "crab", "cake", "thermal")
"""Never shown to the denoiser; the other never-shown objects and style are for tests."""
