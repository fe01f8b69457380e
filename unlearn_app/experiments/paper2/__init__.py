"""Paper 2 (2410.12777): does meta-unlearning resist relearning, and what does it cost?"""
