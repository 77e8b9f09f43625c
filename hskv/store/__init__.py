"""The key-value store: a table, values, verbs, plans, and the mapping over them."""
