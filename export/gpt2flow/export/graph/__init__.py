"""The serving graph and the nodes it is written of."""
