"""Real clients against a local server that fails as their providers do.

`faults.py` has what can go wrong, `server.py` sends it, `<sdk>.py` has a provider's envelopes and
drives its client, and `expected/<sdk>.csv` what each failure is to be read as.
"""
