"""Paper 3 (2511.07970): what twelve requests in a row do to a model, and what holds it together."""
