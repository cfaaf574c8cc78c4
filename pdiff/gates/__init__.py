"""The check at the end of each stage: at which stage did it break, and why."""
