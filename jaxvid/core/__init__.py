"""What every system uses, one idea a file."""
