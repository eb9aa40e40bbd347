"""``/api/workflows``: the workflows on offer, and calls of them."""
