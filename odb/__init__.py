"""On-Demand Buffer: the Python face of the runtime (settings, launcher, statistics, protocol)."""

__version__ = "0.1.0"
