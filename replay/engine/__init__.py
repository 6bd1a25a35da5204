"""The two engines: `reference` in SimPy, which reads as the definition, and `compiled` with Numba, for scale."""
