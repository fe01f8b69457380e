"""The only folder that imports diffusers and peft: pipelines as a `Backend`, their parts and their
files.
"""
