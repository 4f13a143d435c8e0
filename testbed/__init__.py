"""The testbed: deploys client, FE, IS and BE hosts, runs variants of the servers under load and compares them."""
