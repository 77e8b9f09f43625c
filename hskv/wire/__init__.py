"""The HandlerSocket protocol on bytes alone: no socket, clock, thread or log."""
