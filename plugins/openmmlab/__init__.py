"""What the plugins for OpenMMLab's libraries share; no plugin."""
