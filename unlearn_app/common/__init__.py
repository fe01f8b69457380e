"""What every layer stands on: errors, atomic files, paths, seeds, pictures, the registry of
parts.
"""
