"""The bundled world: its words, its scenes and how they are drawn."""
