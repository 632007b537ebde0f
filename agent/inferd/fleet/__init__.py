"""A fleet of devices on the LAN: what they announce, which of them are trusted, and calling them as one.

Nothing here is imported by a plain `Client`; zeroconf only when somebody browses.
"""
