"""What the whole package uses: checks, files, the machine, signals, progress."""
