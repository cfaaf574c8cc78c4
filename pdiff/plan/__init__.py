"""What a run will cost, predicted before anything is computed."""
