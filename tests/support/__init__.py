"""What the tests of several files need."""
