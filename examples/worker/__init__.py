"""Workers that take jobs from a queue in a table, with a leader among them."""
