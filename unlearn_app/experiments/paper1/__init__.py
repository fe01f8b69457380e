"""Paper 1 (2412.07808): what each piece of the restricted gradient is worth."""
