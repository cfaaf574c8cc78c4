"""The decorators of hooks: `hookspec` for what pdiff asks, `hookimpl` for what a plugin answers."""

import pluggy

hookspec = pluggy.HookspecMarker("pdiff")
hookimpl = pluggy.HookimplMarker("pdiff")
