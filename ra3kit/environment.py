"""What a bug report needs, and what a run's provenance keeps: versions, machine, limits, GPUs, commits. No secrets.

Every probe that fails says why in place of its answer, `unknown (...)`, and none stops the others: a report must also
be had on a machine where something is broken. Nothing heavy is imported but torch, and that only when it is asked for.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ra3kit import __version__

CORE = (
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "datasets",
    "pyarrow",
    "numpy",
    "omegaconf",
    "jsonargparse",
    "torchmetrics",
    "tensorboard",
    "huggingface-hub",
    "safetensors",
)
"""Packages whose versions a run may depend on."""

ACCELERATORS = ("triton", "flash-attn", "liger-kernel", "vllm", "bitsandbytes")
"""Optional packages that change how a run computes; named whether or not an extra of ours asks for them."""

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "CUBLAS_WORKSPACE_CONFIG",
    "HF_DATASETS_OFFLINE",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "LD_LIBRARY_PATH",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MKL_NUM_THREADS",
    "NODE_RANK",
    "PYTHONHASHSEED",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RANK",
    "SLURM_JOB_ID",
    "SLURM_NNODES",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "TOKENIZERS_PARALLELISM",
    "TRANSFORMERS_OFFLINE",
    "WORLD_SIZE",
)
PREFIXES = ("OMP_", "NCCL_", "RA3KIT_")
"""Environment variables that are shown: these names, and names that begin so. No other is ever read."""

SECRET = re.compile(r"token(?!s|iz)|secret|passw|credential|api_?key|auth", re.IGNORECASE)
"""What a name of a variable or a setting has in it when its value is nobody's business."""

GIT_SECONDS = 20


# --- all of it -------------------------------------------------------------------------------------------------------


def environment(torch: bool = True, sandbox: bool = True) -> dict[str, Any]:
    """Everything, in sections of plain values, as JSON takes it.

    Args:
        torch: ask torch about GPUs; imports it (seconds).
        sandbox: start a confined program to see which walls stand here (a tenth of a second).
    """
    sections: dict[str, Callable[[], Any]] = {
        "ra3kit": kit,
        "system": system,
        "processor": processor,
        "memory": memory,
        **({"gpu": gpu} if torch else {}),
        "packages": lambda: versions(CORE),
        "optional": optional,
        "variables": variables,
        **({"sandbox": lambda: {"walls": tried(walls)}} if sandbox else {}),
        "disk": disk,
    }
    return {name: tried(section) for name, section in sections.items()}


def tried(probe: Callable[[], Any]) -> Any:
    """What the probe finds, or `unknown (...)` with the reason."""
    try:
        return probe()
    except Exception as error:  # noqa: BLE001  a broken library may raise anything, and the rest is still wanted
        return f"unknown ({type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'})"


# --- sections --------------------------------------------------------------------------------------------------------


def kit() -> dict[str, Any]:
    """Version of ra3kit, and its commit where it is a checkout or was installed from one."""
    return {"version": __version__, **tried_mapping(kit_commit, "commit")}


def system() -> dict[str, Any]:
    """Python, operating system, kernel, C library, user."""
    return {
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.python_compiler()})",
        "os": tried(lambda: platform.freedesktop_os_release()["PRETTY_NAME"]),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or "unknown (not a GNU C library)",
        "user": tried(lambda: "root" if os.getuid() == 0 else "not root"),
        "container": tried(container),
    }


def processor(cgroup: Path = Path("/sys/fs/cgroup"), info: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Model, cores, and how many of them this process may use."""
    return {
        "model": cpu_model(info),
        "cores": os.cpu_count(),
        "usable": tried(lambda: len(os.sched_getaffinity(0))),
        "limit": tried(lambda: cpu_limit(cgroup)),
    }


def memory(cgroup: Path = Path("/sys/fs/cgroup"), info: Path = Path("/proc/meminfo")) -> dict[str, Any]:
    """Main memory of the machine, and what this process may have of it."""

    def of(key: str) -> str:
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        return gib(int(lines[key].split()[0]) * 1024)

    return {
        "total": tried(lambda: of("MemTotal")),
        "available": tried(lambda: of("MemAvailable")),
        "limit": tried(lambda: memory_limit(cgroup)),
    }


def gpu() -> dict[str, Any]:
    """Devices as torch sees them, driver, CUDA, whether bf16 is native. Imports torch."""
    import torch

    found: dict[str, Any] = {"torch is built for": torch_build(torch), "driver": tried(driver)}
    if not torch.cuda.is_available():
        return found | {"devices": "none that torch can use"}
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        major, minor = properties.major, properties.minor
        found[f"device {number}"] = f"{properties.name}, {gib(properties.total_memory)}, capability {major}.{minor}"
    return found | {"bf16": "native" if torch.cuda.is_bf16_supported(including_emulation=False) else "not native"}


def torch_build(torch: Any) -> str:
    """What a torch wheel was compiled for."""
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version() or 'not found'}"
    return f"ROCm {torch.version.hip}" if getattr(torch.version, "hip", None) else "CPU only"


def driver() -> str:
    """Version of the NVIDIA driver, as the kernel or its own tool says; "none"."""
    path = Path("/proc/driver/nvidia/version")
    if path.is_file():
        match = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", path.read_text())
        if match:
            return match[1]
    if shutil.which("nvidia-smi") is None:
        return "none (no NVIDIA kernel module, no nvidia-smi)"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_SECONDS).stdout.splitlines()[
        0
    ]


def optional() -> dict[str, str]:
    """Packages of the extras, and accelerators: version or "-", read from what is installed; none is imported."""
    wanted = [name for extra, names in extras().items() if extra != "dev" for name in names]
    return versions(dict.fromkeys([*wanted, *ACCELERATORS]))


def extras() -> dict[str, list[str]]:
    """Extra -> the packages it asks for, from the installed metadata; empty where ra3kit is only on the path."""
    try:
        required = importlib.metadata.requires("ra3kit") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for line in required:
        match = re.match(r"([\w.-]+).*;.*\bextra\s*==\s*['\"]([\w-]+)['\"]", line)
        if match and match[1].lower() != "ra3kit":
            found.setdefault(match[2], []).append(match[1])
    return found


def variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables that are shown, where they are set.

    >>> variables({"OMP_NUM_THREADS": "2", "HF_TOKEN": "x", "RA3KIT_API_KEY": "y", "HOME": "/root"})
    {'OMP_NUM_THREADS': '2'}
    """
    shown = {name for name in environ if name in VARIABLES}
    shown |= {name for name in environ if name.startswith(PREFIXES) and not SECRET.search(name)}
    return {name: environ[name] for name in sorted(shown)}


def walls() -> str:
    """Which sandbox stands here ("landlock+seccomp+rlimits+namespaces+uid"), or why none does. Starts a program."""
    import asyncio

    from ra3kit.verify.isolation import NoSandbox, label, readable
    from ra3kit.verify.probe import first_that_holds

    async def first() -> str:
        box, isolation = await first_that_holds(readable(), "auto")
        try:
            return label(isolation, box.walls)
        finally:
            box.close()

    try:
        return asyncio.run(first())
    except NoSandbox as error:
        return f"none: {error}"


def disk() -> dict[str, str]:
    """Free space where runs, temporary files and downloaded models go."""
    places = {
        "here": Path.cwd(),
        "temporary": Path(os.environ.get("TMPDIR") or "/tmp"),
        "models": Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"),
    }
    return {name: tried(lambda place=place: free(place)) for name, place in places.items()}  # type: ignore[misc]


# --- parts -----------------------------------------------------------------------------------------------------------


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of installed packages, "-" for those that are not; nothing is imported."""
    out = {}
    for package in packages:
        try:
            out[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            out[package] = "-"
    return out


def cpu_model(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name."""
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_limit(cgroup: Path) -> str:
    """Processors a control group allows (version 2, or 1), or "none"."""
    if (cgroup / "cpu.max").is_file():
        quota, period = (cgroup / "cpu.max").read_text().split()
    elif (cgroup / "cpu" / "cpu.cfs_quota_us").is_file():
        quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    else:
        return "none"
    return "none" if quota in ("max", "-1") else f"{int(quota) / int(period):g} cores"


def memory_limit(cgroup: Path) -> str:
    """Memory a control group allows (version 2, or 1), or "none"."""
    for path in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        if path.is_file():
            text = path.read_text().strip()
            return "none" if text == "max" or int(text) >= 1 << 60 else gib(int(text))
    return "none"


def container() -> str:
    """What this runs in, as far as it shows."""
    marks = {"/.dockerenv": "docker", "/run/.containerenv": "podman", "/.singularity.d": "singularity"}
    found = [name for path, name in marks.items() if Path(path).exists()]
    return found[0] if found else "none that shows"


def free(place: Path) -> str:
    """Free and total space of the file system that a folder is, or will be, on."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    usage = shutil.disk_usage(there)
    return f"{gib(usage.free)} free of {gib(usage.total)} ({place})"


def gib(size: int) -> str:
    """Bytes in words.

    >>> gib(3 * 2**29)
    '1.5 GiB'
    """
    return f"{size / 2**30:.1f} GiB"


# --- commits ---------------------------------------------------------------------------------------------------------


def kit_commit(package: Path = Path(__file__).parent) -> dict[str, Any]:
    """Commit of the kit: of the checkout it runs from, or the one pip installed it from; {} for a release.

    A package that only lies below somebody's repository (a virtual environment in it, say) is no checkout of that.
    """
    if git(package, "ls-files", "--error-unmatch", "__init__.py") is not None:
        return commit(package)
    try:
        origin = importlib.metadata.distribution("ra3kit").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return {}
    # of the address only the commit is read: it may hold a password
    installed = json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")
    return {"commit": installed} if installed else {}


def commit(folder: Path) -> dict[str, Any]:
    """{"commit", "branch", "changed": files that differ from it} of the repository around a folder; {} without one."""
    head = git(folder, "rev-parse", "HEAD")
    if head is None:
        return {}
    status = git(folder, "status", "--porcelain")
    changed = len(status.splitlines()) if status is not None else "unknown (git status failed)"
    return {"commit": head, "branch": git(folder, "rev-parse", "--abbrev-ref", "HEAD"), "changed": changed}


def git(folder: Path, *arguments: str) -> str | None:
    """What git says in a folder; None when it refuses. It takes no lock and asks nobody anything.

    Raises:
        OSError: git is not installed, or the folder is not there.
        subprocess.TimeoutExpired: it took too long.
    """
    settings = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_SECONDS, env=settings
    )
    return done.stdout.strip() if done.returncode == 0 else None


def tried_mapping(probe: Callable[[], dict[str, Any]], name: str) -> dict[str, Any]:
    """What the probe finds; or, under `name`, why it failed."""
    found = tried(probe)
    return found if isinstance(found, dict) else {name: found}


# --- for people ------------------------------------------------------------------------------------------------------


def lines(found: Mapping[str, Any]) -> list[str]:
    """The sections as aligned lines."""
    out: list[str] = []
    for title, section in found.items():
        rows = section if isinstance(section, Mapping) else {title: section}
        shown = dict(rows) or {"": "none"}
        width = max(len(str(key)) for key in shown)
        out += [title, *(f"  {key:<{width}}  {value}".rstrip() for key, value in shown.items()), ""]
    return out[:-1]
