"""What to say when something asked for from the Hugging Face hub is not there."""

from __future__ import annotations

import os


def offline() -> bool:
    """True when the environment forbids the hub clients to connect."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in names)


def hub_advice(download: str, use: str) -> str:
    """How to get it: from another machine when this one is offline.

    Args:
        download: the command that fetches it where there is a network.
        use: the setting that then names it.
    """
    if offline():
        return (
            "HF_HUB_OFFLINE is set, so only local folders and names in the hub's cache work. Download it beforehand, "
            f"where there is a network: {download}, and set {use}; or unset HF_HUB_OFFLINE."
        )
    return f"Check the name and the network; or download it beforehand: {download}, and set {use}."
