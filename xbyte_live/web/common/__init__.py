"""What every page and endpoint of the server uses."""
