"""Settings of `vespera`, in layers: where each value comes from can be asked."""

from __future__ import annotations

from vespera_server.settings.layers import Layered, load_settings
from vespera_server.settings.model import RunSettings, Settings, StateSettings

__all__ = ["Layered", "RunSettings", "Settings", "StateSettings", "load_settings"]
