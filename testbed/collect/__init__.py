"""Samplers that run on the hosts, and the reading of what they wrote."""
