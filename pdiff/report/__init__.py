"""What a run shows: table and figures."""
