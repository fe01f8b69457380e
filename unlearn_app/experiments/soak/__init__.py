"""Whether anything is lost or anybody gets in: a crowd of visitors, kills, nonsense, hostile files.

Everything is driven from outside, by processes and requests on loopback.
"""
