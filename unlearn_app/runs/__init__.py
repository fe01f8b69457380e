"""One run from its settings to its events and its folder, and what is made of the folder
afterwards.
"""
