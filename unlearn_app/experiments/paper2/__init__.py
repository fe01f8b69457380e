"""Paper 2 (2410.12777): does looking ahead resist an adversary, and at what price."""
