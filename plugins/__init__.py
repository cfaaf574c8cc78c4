"""The task plugins that come with pdiff."""
