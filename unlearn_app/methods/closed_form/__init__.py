"""Closed-form edits, one method per file.

A method is a frozen dataclass whose fields are its hyperparameters; one called `rank` bounds the
adapter's. It is called as `(weights, forget, anchor, retain) -> factors by layer` and returns the
update of every one of `weights`, which are cross-attention key and value matrices (out, D), as
`models.lora.Factors` under the same names. Rows of the others are tokens of text states: row i of
`forget` (N, D) shall map to where row i of `anchor` (N, D) maps, and every row of `retain` (M, D),
which may be none, to where it did.
"""
