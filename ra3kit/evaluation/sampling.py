"""Samples of a model on a benchmark, written down as each is done, so that an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ra3kit import loading
from ra3kit.errors import DataError, ModelError, RecipeError, RunError, nearest
from ra3kit.evaluation.prompts import (
    Style,
    check_style,
    cut,
    program_of,
    prompt_ids,
    stops_of,
    without_unfinished_line,
)
from ra3kit.evaluation.samples import SAMPLES, Finish, Sample
from ra3kit.models import base_model
from ra3kit.progress import track
from ra3kit.ranges import check_number
from ra3kit.rollout import Engine, attention
from ra3kit.rollout.sampling import stream_key
from ra3kit.verify.problem import Problem

EngineName = Literal["ra3kit", "generate"]
TooLong = Literal["error", "empty"]
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn; all of it stands in the eval card.

    Args:
        n: samples of each task, >= 1.
        temperature: >= 0; 0 is greedy, and then n must be 1.
        top_p: in (0, 1].
        max_new_tokens: most tokens of an answer, >= 1.
        seed: with the task's id and the sample's number it fixes every draw.
        style: see `ra3kit.evaluation.prompts.Style`.
        engine: "ra3kit" (the kit's rollout engine) or "generate" (transformers', one task at a time, for comparison).
        batch: answers drawn at once, >= 1. Draws of the kit's engine do not depend on it; those of generate do.
        start_token: begin with the start token of training (BOS; EOS where there is none).
        trim: drop the last, unfinished line of an answer that the length limit cut.
        too_long: what to do with a prompt that leaves no room for max_new_tokens in the model's context: "error", or
            "empty" for an answer of no text, which fails.

    Raises:
        RecipeError: a value out of range.
    """

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0
    style: Style = "complete"
    engine: EngineName = "ra3kit"
    batch: int = 32
    start_token: bool = True
    trim: bool = False
    too_long: TooLong = "error"

    def __post_init__(self) -> None:
        for field, kinds in (("n", int), ("max_new_tokens", int), ("seed", int), ("batch", int)):
            self._check(field, kinds, "a whole number")
        for field in ("temperature", "top_p"):
            self._check(field, (int, float), "a number")
        for field in ("start_token", "trim"):
            if not isinstance(getattr(self, field), bool):
                raise RecipeError(f"{field}={getattr(self, field)!r}: must be true or false")
        if self.n < 1 or self.max_new_tokens < 1 or self.batch < 1:
            raise RecipeError(
                f"n={self.n}, max_new_tokens={self.max_new_tokens} and batch={self.batch} must be at least 1"
            )
        check_number("seed", self.seed, least=0, whole=True)
        if not 0 <= self.temperature < float("inf") or not 0 < self.top_p <= 1:
            raise RecipeError(
                f"temperature={self.temperature} must be >= 0 (0 is greedy) and top_p={self.top_p} in (0, 1]"
            )
        if self.temperature == 0 and self.n > 1:
            raise RecipeError(
                f"n={self.n} with temperature=0: greedy decoding draws the same answer each time. Use n=1, or a "
                "temperature above 0 (0.2 for pass@1, 0.6 to 0.8 for pass@5 and beyond)."
            )
        check_style(self.style)
        for field, choice in (("engine", EngineName), ("too_long", TooLong)):
            value, allowed = getattr(self, field), get_args(choice)
            if value not in allowed:
                close = nearest(str(value), allowed)
                raise RecipeError(f"{field}={value!r}: allowed are {', '.join(allowed)}.{close}")

    def _check(self, name: str, kinds: type | tuple[type, ...], what: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise RecipeError(f"{name}={value!r}: must be {what}")

    def identity(self) -> dict[str, Any]:
        """What the draws depend on."""
        every = asdict(self)
        if self.engine == "ra3kit":
            del every["batch"]
        return every


SAMPLING_KEYS = tuple(field.name for field in fields(Sampling))


# ---- the model ------------------------------------------------------------------------------------------------------


def model_folder(name: str) -> str:
    """A Hugging Face folder, a run folder's `model/`, or else a hub id.

    Raises:
        ModelError: a folder that holds no model.
    """
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return str(path)
    if (path / "model" / "config.json").is_file():
        return str(path / "model")
    if path.exists():
        raise ModelError(
            f"model={name}: no model here. Give a folder with config.json, or the folder of a run that was finished "
            "(its model/ is used)."
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model={name}: no such folder, and a hub id has at most one '/'.")
    return name


def load_model(name: str, engine: EngineName, dtype: str, device: str) -> PreTrainedModel:
    """A causal LM ready to be sampled from.

    Args:
        name: folder or hub id, from `model_folder`.
        engine: the kit's engine brings its own attention.
        dtype: "auto" (the checkpoint's), "float32", "bfloat16" or "float16".
        device: "auto" (CUDA if there is one), or a torch device.

    Raises:
        ModelError: it cannot be loaded, or put on the device.
    """
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ModelError(f"dtype={dtype!r}: allowed are auto, float32, bfloat16, float16.")
    transformers_logging.disable_progress_bar()
    implementation = attention.NAME if engine == "ra3kit" else None
    model: Any = loading.load_model(name, dtype, implementation)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        return model.to(where).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device={device!r}: {str(error).splitlines()[0]}") from error


def fingerprint(folder: str) -> str:
    """A short hash of a model folder's weights and config, from sizes, beginnings and ends; "" for a hub id."""
    path = Path(folder)
    if not path.is_dir():
        return ""
    digest = hashlib.blake2b(digest_size=8)
    files = [*path.glob("*.safetensors"), *path.glob("*.bin"), *path.glob("config.json"), *path.glob("tokenizer.json")]
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as data:
            digest.update(data.read(2**20))
            data.seek(max(0, size - 2**20))
            digest.update(data.read())
    return digest.hexdigest()


# ---- the folder -----------------------------------------------------------------------------------------------------


def begin(folder: Path, identity: Mapping[str, Any], asked: Mapping[str, Any] | None = None) -> None:
    """Write down what the samples of this folder depend on, or check that it is what it was.

    Args:
        identity: all that the draws depend on.
        asked: the command, for whoever resumes.

    Raises:
        RunError: the folder's samples were drawn with other settings; the first difference is named.
    """
    path = folder / SETTINGS
    new = json.loads(json.dumps({"identity": identity, "asked": asked or {}}))
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(new, indent=1), encoding="utf-8")
        return
    for key, was, now in differences(read_settings(folder)["identity"], new["identity"]):
        raise RunError(
            f"{folder}: its samples were drawn with {key}={was!r}, and now {key}={now!r} is asked for. Samples of two "
            "kinds are never mixed: start a new folder, or resume with the settings it had."
        )


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a folder.

    Raises:
        RunError: there are none.
    """
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: no evaluation to resume here ({SETTINGS}: {error})") from error


def differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old, new) wherever two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new


def kept_samples(folder: Path) -> list[Sample]:
    """The samples a folder holds; a last line that was torn when the writer died is cut off the file.

    Raises:
        DataError: another line is damaged.
    """
    path = folder / SAMPLES
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    samples = []
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            samples.append(Sample(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: this line is no sample ({error}); delete it to have it drawn again"
            ) from error
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return samples


# ---- sampling -------------------------------------------------------------------------------------------------------


def sample(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    settings: Sampling,
    folder: Path | None = None,
    progress: bool = True,
) -> dict[str, list[Sample]]:
    """n samples of each task.

    Args:
        model: in evaluation mode; for engine "ra3kit" with its attention.
        tokenizer: the model's.
        problems: unique ids.
        settings: of the draws.
        folder: samples.jsonl is appended to here as samples are done, and samples found here are not drawn again
            (call `begin` first, which checks that they are of these settings). None keeps all in memory.
        progress: show how far it is.

    Returns:
        Task id -> its samples in order, in the order of the problems.

    Raises:
        RunError: prompts that are too long, and `too_long` is "error".
    """
    by_id = {problem.id: problem for problem in problems}
    kept = kept_samples(folder) if folder is not None else []
    done = {(s.task_id, s.sample): s for s in kept if s.task_id in by_id and s.sample < settings.n}
    missing = [
        (problem, number) for problem in problems for number in range(settings.n) if (problem.id, number) not in done
    ]
    long = set(prompts_too_long(model, tokenizer, problems, settings))
    prompts = {problem.id: prompt_ids(problem, settings.style, tokenizer, settings.start_token) for problem in problems}
    draw = _draw_engine if settings.engine == "ra3kit" else _draw_generate
    file = (folder / SAMPLES).open("a", encoding="utf-8") if folder is not None and missing else None
    try:
        with _progress(len(missing), progress) as advance:

            def keep(problem: Problem, number: int, ids: Sequence[int], finish: Finish) -> None:
                made = finished(problem, number, ids, finish, tokenizer, settings)
                done[problem.id, number] = made
                if file is not None:
                    file.write(made.line())
                    file.flush()
                advance()

            for problem, number in (pair for pair in missing if pair[0].id in long):
                keep(problem, number, [], "length")
            answered = [pair for pair in missing if pair[0].id not in long]
            for stops, group in _by_stops(answered, settings.style):
                draw(model, tokenizer, group, prompts, stops, settings, keep)
    finally:
        if file is not None:
            file.close()
    return {problem.id: [done[problem.id, number] for number in range(settings.n)] for problem in problems}


def prompts_too_long(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], settings: Sampling
) -> list[str]:
    """Tasks whose prompt leaves no room for `max_new_tokens` in the model's context.

    Raises:
        RunError: there are some, and `too_long` is "error".
    """
    context = int(base_model(model).config.max_position_embeddings)
    sizes = {p.id: len(prompt_ids(p, settings.style, tokenizer, settings.start_token)) for p in problems}
    long = [name for name, size in sizes.items() if size + settings.max_new_tokens > context]
    if long and settings.too_long == "error":
        worst = max(long, key=lambda name: sizes[name])
        raise RunError(
            f"{len(long)} of {len(sizes)} prompts leave no room for max_new_tokens={settings.max_new_tokens} in the "
            f"model's context of {context} positions; the longest is {worst!r} with {sizes[worst]} tokens. Lower "
            "max_new_tokens, choose a model with a longer context, or leave them unanswered with too_long=empty."
        )
    return long


Keep = Callable[[Problem, int, Sequence[int], Finish], None]


def finished(
    problem: Problem,
    number: int,
    ids: Sequence[int],
    finish: Finish,
    tokenizer: PreTrainedTokenizerBase,
    settings: Sampling,
) -> Sample:
    """The sample that came of these ids: as sampled, cut at the stop list, and as a program."""
    from ra3kit.data.encode import decode_ids

    [raw] = decode_ids(tokenizer, [ids[:-1] if finish == "end" else ids])
    completion = cut(raw, stops_of(problem, settings.style))
    if len(completion) < len(raw):
        finish = "stop"
    if settings.trim and finish == "length":
        completion = without_unfinished_line(completion)
    return Sample(problem.id, program_of(problem, completion, settings.style), completion, raw, number, finish)


def _by_stops(
    missing: Sequence[tuple[Problem, int]], style: Style
) -> Iterator[tuple[tuple[str, ...], list[tuple[Problem, int]]]]:
    groups: dict[tuple[str, ...], list[tuple[Problem, int]]] = {}
    for problem, number in missing:
        groups.setdefault(stops_of(problem, style), []).append((problem, number))
    yield from groups.items()


def _progress(total: int, shown: bool) -> Any:
    from contextlib import nullcontext

    return track(total, "sampling") if shown and total else nullcontext(lambda: None)


def _draw_engine(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    wanted: Sequence[tuple[Problem, int]],
    prompts: Mapping[str, Sequence[int]],
    stops: tuple[str, ...],
    settings: Sampling,
    keep: Keep,
) -> None:
    """Every sample is a row of its own with a name of its own, so it is the same whatever else is still to be drawn."""
    capacity = max(len(prompts[problem.id]) for problem, _ in wanted) + settings.max_new_tokens
    engine = Engine(model, tokenizer, slots=settings.batch, capacity=capacity)
    engine.generate(
        [prompts[problem.id] for problem, _ in wanted],
        seed=settings.seed,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=stops,
        names=[f"{problem.id}\0{number}" for problem, number in wanted],
        on_done=lambda index, row: keep(*wanted[index], row.ids, row.finish),
    )


def _draw_generate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    wanted: Sequence[tuple[Problem, int]],
    prompts: Mapping[str, Sequence[int]],
    stops: tuple[str, ...],
    settings: Sampling,
    keep: Keep,
) -> None:
    """transformers' generate, one task at a time, in fixed groups of `batch` samples with a seed for each group."""
    device = next(model.parameters()).device
    end = tokenizer.eos_token_id
    numbers: dict[tuple[str, int], list[int]] = {}
    problem_of = {problem.id: problem for problem, _ in wanted}
    for problem, number in wanted:
        numbers.setdefault((problem.id, number // settings.batch), []).append(number)
    draws: dict[str, Any] = {"do_sample": False}
    if settings.temperature > 0:
        draws = {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
    cuda = [device] if device.type == "cuda" else []
    for (name, group), some in numbers.items():
        first = group * settings.batch
        count = min(settings.batch, settings.n - first)
        ids = torch.tensor([prompts[name]], device=device)
        with torch.random.fork_rng(devices=cuda), torch.inference_mode():
            torch.manual_seed(stream_key(settings.seed, name, group) >> 1)
            out: Any = model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                num_return_sequences=count,
                max_new_tokens=settings.max_new_tokens,
                use_cache=True,
                repetition_penalty=1.0,  # not what the model's generation_config may say
                eos_token_id=end,
                pad_token_id=end,
                stop_strings=list(stops),
                tokenizer=tokenizer,
                **draws,
            )
        for number in some:
            row = out[number - first, ids.shape[1] :].tolist()
            ended = end in row
            keep(problem_of[name], number, row[: row.index(end) + 1] if ended else row, "end" if ended else "length")
