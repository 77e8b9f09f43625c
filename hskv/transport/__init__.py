"""Moves a request to a server and its reply back."""
