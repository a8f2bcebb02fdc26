"""`resilience demo`: a scripted bad minute against a local gateway, with the real Auriko client.

It needs the extra `resilience-policies[demo]`.
"""
