"""A web application whose processes share all that they remember by a table."""
