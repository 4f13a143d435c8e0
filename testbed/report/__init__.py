"""Ways to show a comparison.  Reports read what analysis made of records and start nothing."""
