"""Providers make hosts. Whatever a provider does, what it returns are `testbed.spec.Host` objects."""
