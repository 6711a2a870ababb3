"""What the stores of all databases share; no module here names a database."""
