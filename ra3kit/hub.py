"""The Hugging Face hub: what to say when something asked for is not there, and giving it something."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ra3kit.errors import RunError


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


def check_push(repo_id: str) -> None:
    """Find out before any work is done that a new repository can be made on the hub.

    Raises:
        RunError: no name of a repository, one that is there already, no network, or nobody is logged in.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", repo_id):
        raise RunError(f"--push {repo_id}: a name is needed as the hub has them, owner/name.")
    if offline():
        raise RunError(
            f"--push {repo_id}: HF_HUB_OFFLINE is set, so the hub can't be reached. {_BY_HAND.format(repo_id)}"
        )
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        HfApi().whoami()
        there = HfApi().repo_exists(repo_id)
    except (OSError, ValueError, HTTPError) as error:
        raise RunError(f"--push {repo_id}: {_first_line(error)} {_BY_HAND.format(repo_id)}") from error
    if there:
        raise RunError(
            f"--push {repo_id}: the hub has this repository already. Nothing is overwritten; choose a new name."
        )


def push(folder: Path, repo_id: str, private: bool) -> str:
    """Make a repository and upload a folder to it; its address.

    Raises:
        RunError: the hub refused, or the network failed; the folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        HfApi().create_repo(repo_id, private=private, repo_type="model")
        HfApi().upload_folder(folder_path=folder, repo_id=repo_id, commit_message="Export by ra3kit")
    except (OSError, ValueError, HTTPError) as error:
        raise RunError(
            f"--push {repo_id}: {_first_line(error)} The model is whole in {folder}. Upload it with: "
            f"hf upload {repo_id} {folder}"
        ) from error
    return f"https://huggingface.co/{repo_id}"


_BY_HAND = "Export without --push, then, where there is a network and a login (hf auth login): hf upload {} FOLDER"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."
