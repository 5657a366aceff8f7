"""Tasks, child processes, rate limits, JSON and formatting: what every part runs on."""
