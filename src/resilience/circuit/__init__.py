"""A circuit: its states, what opens it, and how it is shared with others."""
