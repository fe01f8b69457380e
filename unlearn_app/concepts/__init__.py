"""What the user typed, turned into prompts, an anchor and relatives."""
