"""What a method may ask of a model, and the models that answer."""
