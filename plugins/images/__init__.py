"""What the plugins for image tasks share; no plugin."""
