"""The load generator: Locust users that each make a fixed number of GETs, and one exact result per run.

It knows nothing of the testbed: arguments go in, a JSON file comes out.
"""
