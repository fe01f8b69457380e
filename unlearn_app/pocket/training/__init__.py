"""How the models of the bundled world are trained."""
