"""Views to tokens."""
