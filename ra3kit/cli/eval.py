"""Evaluate a model on a benchmark: sample, judge every program in the sandbox, print pass@k with its interval.

Settings are written without dashes: n=20 temperature=0.8 k=1,10 max_new_tokens=512 seed=0 limit=50 path=FILE.
Samples are written as they are drawn; an interrupted evaluation goes on with --resume. Programs never run outside the
sandbox.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ra3kit.errors import RecipeError, RunError, nearest
from ra3kit.overrides import parse_override
from ra3kit.verify.isolation import Isolation

if TYPE_CHECKING:
    from ra3kit.evaluation.records import Problems
    from ra3kit.evaluation.samples import Samples
    from ra3kit.evaluation.sampling import Sampling

EXAMPLES = """examples:
  ra3kit eval --model runs/tiny-ra3/001 --benchmark ra3kit
  ra3kit eval --model Qwen/Qwen2.5-1.5B --benchmark humaneval+ n=20 temperature=0.8 k=1,10
  ra3kit eval --model my/model --benchmark mbpp+ path=MbppPlus.jsonl.gz style=stub limit=50
  ra3kit eval --from samples.jsonl --benchmark humaneval+      # judge samples drawn elsewhere
  ra3kit eval --resume runs/eval/humaneval+/003                # go on where it was interrupted

benchmarks:
  humaneval, humaneval+, mbpp, mbpp+    files of evalplus (found, downloaded by it, or path=FILE)
  livecodebench, codeforces, codecontests    path=FILE
  ra3kit    small problems that come with the kit
  family    tasks of the generated program family
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model or samples, the benchmark, where to, and settings."""
    parser.add_argument("--model", metavar="DIR|ID", help="a Hugging Face folder or id, or the folder of a run")
    parser.add_argument("--from", dest="samples", metavar="FILE", help="judge these samples, sample nothing")
    parser.add_argument("--benchmark", metavar="NAME", help="see below")
    parser.add_argument("--out", metavar="DIR", help="a new folder (default: runs/eval/BENCHMARK/NNN)")
    parser.add_argument("--resume", metavar="DIR", help="the folder of an evaluation that was interrupted")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="n, temperature, top_p, k, limit, path, ...")


@dataclass(frozen=True)
class Plan:
    """What is asked for, apart from how samples are drawn.

    Args:
        k: of pass@k.
        limit: only the first so many problems.
        dtype, device: of the model.
        workers: programs judged at a time; None: as many as there are processors.
        isolation: of the sandbox.
        missing: "error" or "skip" when a sample file lacks tasks.
    """

    k: tuple[int, ...] = (1,)
    limit: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    workers: int | None = None
    isolation: Isolation = "auto"
    missing: str = "error"

    def __post_init__(self) -> None:
        for name in ("limit", "workers"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise RecipeError(f"{name}={value!r}: must be a whole number of at least 1, or null")
        if self.isolation not in get_args(Isolation):
            close = nearest(str(self.isolation), get_args(Isolation))
            raise RecipeError(f"isolation={self.isolation!r}: allowed are {', '.join(get_args(Isolation))}.{close}")


@dataclass
class Asked:
    """The whole of a command line, or of a folder that is resumed."""

    benchmark: str
    model: str | None
    options: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)


def run(args: argparse.Namespace) -> int:
    """Sample if there is a model, judge, report.

    Raises:
        RA3Error: what is asked for cannot be done; nothing that exists is overwritten.
    """
    asked = _asked(args)
    if args.samples is not None:
        return _judge_only(asked, args)
    return _sample_and_judge(asked, args)


# ---- what is asked for ----------------------------------------------------------------------------------------------


def _asked(args: argparse.Namespace) -> Asked:
    given = dict(parse_override(item) for item in args.settings)
    if args.resume is not None:
        if args.samples is not None or args.out is not None:
            raise RecipeError("--resume goes on in its own folder with its own samples: leave out --from and --out")
        return _resumed(Path(args.resume), args, given)
    if args.benchmark is None:
        raise RecipeError("--benchmark is missing. See: ra3kit eval --help")
    if (args.model is None) == (args.samples is None):
        raise RecipeError("give one of --model (sample, then judge) and --from (judge samples that there are)")
    asked = _sorted_out(args.benchmark, given)
    asked.model = args.model
    return asked


def _resumed(folder: Path, args: argparse.Namespace, given: Mapping[str, Any]) -> Asked:
    from ra3kit.evaluation.sampling import read_settings

    if (folder / "results.json").is_file():
        raise RunError(f"{folder} is finished. To judge it again: ra3kit eval --from {folder} --benchmark NAME")
    asked = Asked(**read_settings(folder)["asked"])
    for name in ("benchmark", "model"):
        now = getattr(args, name)
        if now is not None and now != getattr(asked, name):
            raise RunError(f"--{name} {now}: {folder} is an evaluation of {getattr(asked, name)}. Start a new folder.")
    new = _sorted_out(asked.benchmark, given)
    for part in ("options", "sampling", "plan"):
        getattr(asked, part).update(getattr(new, part))
    return asked


def _sorted_out(name: str, given: Mapping[str, Any]) -> Asked:
    """Settings by whose they are: the sampler's, this verb's, or the benchmark's.

    Raises:
        RecipeError: nobody's.
    """
    from ra3kit.evaluation.benchmarks import benchmark
    from ra3kit.evaluation.sampling import SAMPLING_KEYS

    options = benchmark(name).options()
    verb = [f.name for f in fields(Plan)]
    asked = Asked(name, None)
    for key, value in given.items():
        if key in SAMPLING_KEYS:
            asked.sampling[key] = value
        elif key in verb:
            asked.plan[key] = _ks(value) if key == "k" else value
        elif key in options:
            asked.options[key] = str(value) if key == "path" else value
        else:
            every = [*SAMPLING_KEYS, *verb, *options]
            raise RecipeError(f"{key}: no such setting.{nearest(key, every)} Settings: {', '.join(every)}.")
    return asked


def _ks(value: Any) -> list[int]:
    """The k of k=1, k=1,5 and k=[1,5].

    >>> _ks("1,5"), _ks(3)
    ([1, 5], [3])
    """
    items = value if isinstance(value, list) else str(value).split(",")
    try:
        return [int(str(item)) for item in items]
    except ValueError as error:
        raise RecipeError(f"k={value!r}: must be numbers, as in k=1,5") from error


def _plan(asked: Asked) -> Plan:
    return Plan(**{**asked.plan, "k": tuple(asked.plan.get("k", (1,)))})


# ---- the two ways ---------------------------------------------------------------------------------------------------


def _sample_and_judge(asked: Asked, args: argparse.Namespace) -> int:
    from ra3kit.evaluation.benchmarks import load
    from ra3kit.evaluation.prompts import form_of, prompt_ids, stops_of
    from ra3kit.evaluation.samples import Samples
    from ra3kit.evaluation.sampling import (
        Sampling,
        begin,
        fingerprint,
        load_model,
        model_folder,
        prompts_too_long,
        sample,
    )
    from ra3kit.evaluation.score import check_ks
    from ra3kit.verify.verifier import verify_all

    plan, sampling = _plan(asked), Sampling(**asked.sampling)
    check_ks(plan.k, sampling.n)
    if args.out is not None:
        _check_new(Path(args.out))
    assert asked.model is not None
    where = model_folder(asked.model)
    verify_all([], isolation=plan.isolation)  # no sandbox is known now, not after hours of sampling
    found = load(asked.benchmark, asked.options, plan.limit)
    tokenizer = _tokenizer(where)
    model = load_model(where, sampling.engine, plan.dtype, plan.device)
    problems = found.problems
    too_long = prompts_too_long(model, tokenizer, problems, sampling)
    first = prompt_ids(problems[0], sampling.style, tokenizer, sampling.start_token)
    folder = Path(args.resume) if args.resume is not None else _new_folder(asked.benchmark, args.out)
    stops = {form_of(problem, sampling.style): stops_of(problem, sampling.style) for problem in problems}
    identity = {
        "model": asked.model,
        "weights": fingerprint(where),
        "dtype": str(model.dtype).removeprefix("torch."),
        "benchmark": asked.benchmark,
        "options": asked.options,
        "limit": plan.limit,
        "sampling": sampling.identity(),
        "stops": {str(form): list(strings) for form, strings in stops.items()},
        "prompts": _digest([problem.id + "\0" + problem.prompt for problem in problems]),
    }
    begin(folder, identity, asdict(asked))
    print(_opening(asked, found, sampling, folder, tokenizer.convert_ids_to_tokens(first[:8])), flush=True)
    settings = {
        "benchmark": {"name": asked.benchmark, "source": found.source, **asked.options, "limit": plan.limit},
        "model": {"name": asked.model, "weights": identity["weights"]},
        "dtype": identity["dtype"],
        "device": str(model.device),
        "sampling": asdict(sampling),
        "stops": identity["stops"],
        "extraction": _extraction(sampling),
        "first prompt begins with": tokenizer.convert_ids_to_tokens(first[:8]),
    }
    try:
        drawn = sample(model, tokenizer, problems, sampling, folder)
        del model  # its memory is not needed to judge
        samples = Samples(of=drawn, unanswered=too_long, source=str(folder))
        return _judge_and_report(asked, plan, found, samples, settings, folder)
    except KeyboardInterrupt:
        print(f"interrupted; go on with: ra3kit eval --resume {folder}", file=sys.stderr)
        return 130


def _judge_only(asked: Asked, args: argparse.Namespace) -> int:
    from ra3kit.evaluation.benchmarks import load
    from ra3kit.evaluation.samples import read_samples
    from ra3kit.evaluation.score import check_ks, require_all

    if asked.sampling:
        raise RecipeError(f"{', '.join(asked.sampling)}: --from samples nothing, so these have no meaning")
    plan = _plan(asked)
    if args.out is not None:
        _check_new(Path(args.out))
    found = load(asked.benchmark, asked.options, plan.limit)
    samples = read_samples(args.samples, found.problems)
    require_all(samples, found.problems, plan.missing)
    check_ks(plan.k, min(map(len, samples.of.values())))
    folder = _new_folder(asked.benchmark, args.out)
    drawn = _how_drawn(Path(args.samples))
    asked.model = str(drawn.pop("model", f"samples of {args.samples}"))
    digest = _digest([row.solution for rows in samples.of.values() for row in rows])
    settings = {
        "benchmark": {"name": asked.benchmark, "source": found.source, **asked.options, "limit": plan.limit},
        "model": {"name": asked.model, "samples": samples.source, "digest": digest},
        "extraction": "solutions as they are; completions joined to the prompt",
        **drawn,
    }
    print(f"{'samples':<11} {samples.source}: {len(samples)} for {len(samples.of)} tasks")
    print(f"{'benchmark':<11} {asked.benchmark}, {len(found.problems)} tasks ({found.source})")
    print(f"{'folder':<11} {folder}", flush=True)
    return _judge_and_report(asked, plan, found, samples, settings, folder)


def _how_drawn(path: Path) -> dict[str, Any]:
    """What is known of samples that this verb drew itself, from the settings beside them."""
    from ra3kit.evaluation.sampling import SETTINGS, Sampling, read_settings

    folder = path if path.is_dir() else path.parent
    if not (folder / SETTINGS).is_file():
        return {}
    identity = read_settings(folder).get("identity", {})
    sampling = Sampling(**identity["sampling"]) if "sampling" in identity else None
    known = {key: identity[key] for key in ("model", "dtype", "sampling", "stops") if key in identity}
    return known | ({"extraction": _extraction(sampling)} if sampling is not None else {})


def _judge_and_report(
    asked: Asked, plan: Plan, found: Problems, samples: Samples, settings: dict[str, Any], folder: Path
) -> int:
    from ra3kit.evaluation.card import PICTURE_MISSING, card, picture, table_lines, versions
    from ra3kit.evaluation.score import PICTURE, score, write

    results, judged = score(
        samples,
        found.problems,
        plan.k,
        benchmark=asked.benchmark,
        model=str(asked.model),
        settings=settings | {"versions": versions()},
        workers=plan.workers,
        isolation=plan.isolation,
    )
    if found.malformed:
        shown = "; ".join(map(str, found.malformed[:3])) + (" ..." if len(found.malformed) > 3 else "")
        results.notes.insert(0, f"{len(found.malformed)} records of the benchmark were left out: {shown}")
    drawn = picture(results, folder / PICTURE)
    write(folder, results, judged, card(results, with_picture=drawn))
    for line in [*results.notes, *([] if drawn else [PICTURE_MISSING])]:
        print(line)
    print("\n".join(table_lines(results)))
    print(f"{'results':<11} {folder}")
    print(f"{'next':<11} ra3kit compare {_other(folder)} {folder}")
    return 0


# ---- folders and words ----------------------------------------------------------------------------------------------


def _check_new(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise RunError(f"--out {folder}: it is there already. Nothing is overwritten; choose a new folder.")


def _new_folder(benchmark: str, out: str | None) -> Path:
    """Create the folder: `out`, or the first free number."""
    if out is not None:
        _check_new(Path(out))
        Path(out).mkdir(parents=True, exist_ok=True)
        return Path(out)
    parent = Path("runs") / "eval" / benchmark
    while True:
        taken = [int(path.name) for path in parent.glob("*") if path.name.isdigit()]
        folder = parent / f"{max(taken, default=0) + 1:03d}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:  # another evaluation has just taken this number
            continue


def _other(folder: Path) -> str:
    """The evaluation before this one, to compare with; else a word that stands for one."""
    if folder.name.isdigit():
        before = [p for p in folder.parent.glob("*") if p.name.isdigit() and int(p.name) < int(folder.name)]
        finished = [p for p in before if (p / "results.json").is_file()]
        if finished:
            return str(max(finished, key=lambda path: int(path.name)))
    return "OTHER"


def _digest(texts: Sequence[str]) -> str:
    import hashlib

    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(text.encode("utf-8", "backslashreplace") + b"\0")
    return digest.hexdigest()


def _tokenizer(where: str) -> Any:
    from ra3kit.data.tokenizer import load_tokenizer

    return load_tokenizer(where)


def _extraction(sampling: Sampling) -> str:
    if sampling.style == "chat":
        return "the answer's last Python code block that defines the function, after what the prompt has before it"
    trimmed = "; an unfinished last line is dropped" if sampling.trim else ""
    return f"prompt + answer cut at the first stop string{trimmed}"


def _opening(asked: Asked, found: Problems, sampling: Sampling, folder: Path, first: Sequence[str]) -> str:
    greedy = "greedy" if sampling.temperature == 0 else f"temperature {sampling.temperature}, top_p {sampling.top_p}"
    lines = {
        "model": str(asked.model),
        "benchmark": f"{asked.benchmark}, {len(found.problems)} tasks ({found.source})",
        "folder": str(folder),
        "samples": f"{sampling.n} of each task, {greedy}, seed {sampling.seed}, style {sampling.style}",
        "prompts": "begin with " + " ".join(map(repr, first)),
    }
    return "\n".join(f"{key:<11} {value}" for key, value in lines.items())
