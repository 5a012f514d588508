"""Speed and memory, measured as ratios to a plain version, to installed peers, to the machine's limit."""
