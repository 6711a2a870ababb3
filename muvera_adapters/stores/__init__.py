"""What the stores of all databases share; names no database."""
