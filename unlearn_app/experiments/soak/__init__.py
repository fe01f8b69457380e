"""Whether anything is lost and whether data of others can be reached: by many visitors at once,
kills, malformed inputs and hostile files.

Everything is driven from outside, by processes and requests on loopback.
"""
