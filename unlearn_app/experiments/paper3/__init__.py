"""Paper 3 (2511.07970): what twelve requests in a row do to a model, and which arms preserve it."""
