"""One model of adapter and base, ready to be served: python -m dpo_wrap.merge RUN_DIR OUT_DIR

What is written is loaded again and gives the adapter's own probabilities, or it is not kept.
"""

import argparse
import dataclasses
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from dpo_wrap import checkpoints
from dpo_wrap.config import Settings, load_settings
from dpo_wrap.errors import ConfigError, DpoWrapError, ModelError
from dpo_wrap.hub import check_paths, settle_environment
from dpo_wrap.run_dir import CONFIG, RUN
from dpo_wrap.signals import Stop, exit_with

AGAIN, LESS = "run the same command again", "a machine with more memory"
EXAMPLES = """RUN_DIR is the output_dir of a run, one of its checkpoints, or any folder with a LoRA
adapter. The base model is the one that RUN_DIR/config.resolved.yaml names, else
adapter_config.json. Merging takes place on the CPU in float32, four bytes of memory a parameter.

examples:
  python -m dpo_wrap.merge runs/dpo models/dpo
  python -m dpo_wrap.merge runs/dpo models/dpo --dtype bfloat16
  python -m dpo_wrap.merge runs/dpo/checkpoint-200 models/dpo-200

exit status: 0 merged; 1 the merged model was not the adapter's, or it failed or was stopped, and
nothing was written; 2 refused."""

ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def parser() -> argparse.ArgumentParser:
    """The command line; no library is imported for its --help."""
    parser = argparse.ArgumentParser(
        prog="python -m dpo_wrap.merge",
        description="Merge a trained adapter into its base model, compare the two, and save one "
        "model with tokenizer and chat template that any program can load.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run_dir", metavar="RUN_DIR", help="where the adapter is")
    add("out_dir", metavar="OUT_DIR", help="where the model goes; it must not exist, or be empty")
    add(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the saved weights; default: the one that the base was loaded in for training "
        "(float32 unless model_init_kwargs said otherwise)",
    )
    add(
        "--tolerance",
        type=_tolerance,
        metavar="NATS",
        help="the largest difference of any log-probability on the probe prompts that is taken for "
        "rounding; default: 0.001 for float32, 0.05 for float16, 0.2 for bfloat16, and at most "
        "half of what training changed",
    )
    return parser


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number expected, found {text!r}") from None
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is out of range; it must be 0 or more")
    return value


def merge_settings(run_dir: str, out_dir: str) -> Settings:
    """The run's settings, with RUN_DIR as adapter_path and OUT_DIR as output_dir.

    Raises ModelError where RUN_DIR has no adapter, ConfigError where OUT_DIR cannot be written.
    """
    run, out = Path(run_dir).expanduser(), Path(out_dir).expanduser().resolve()
    _check_run(run)
    of_checkpoint = checkpoints.FOLDER.match(run.name) is not None
    homes = [run, run.parent] if of_checkpoint else [run]
    config = next((home / CONFIG for home in homes if (home / CONFIG).is_file()), None)
    settings = load_settings(str(config)) if config else _of_adapter(run)
    settings = dataclasses.replace(
        settings,
        dataset_path=(),
        metrics=(),
        adapter_path=str(run),
        output_dir=str(out),
        locations={**settings.locations, "adapter_path": "RUN_DIR", "output_dir": "OUT_DIR"},
        trl={**settings.trl, "push_to_hub": False},
    )
    check_paths(settings)
    _check_out(out, settings)
    return settings


def _check_run(run: Path) -> None:
    """Raise ModelError saying what stands in RUN_DIR where that is no adapter."""
    if not run.is_dir():
        raise ModelError(f"RUN_DIR {run} is no directory; name the output_dir of a run")
    if not (run / ADAPTER).is_file():
        if (run / "config.json").is_file():
            raise ModelError(f"RUN_DIR {run} is a model already; there is nothing to merge")
        inside = [path for path in checkpoints.find(run) if (path / ADAPTER).is_file()]
        if inside:
            raise ModelError(
                f"RUN_DIR {run} has checkpoints and no adapter, so its run is not finished; let it "
                f"finish, or merge {inside[0]}"
            )
        raise ModelError(f"RUN_DIR {run} has no {ADAPTER}; name the output_dir of a run")
    if not (run / WEIGHTS).is_file():
        raise ModelError(f"RUN_DIR {run}: its weights ({WEIGHTS}) are gone; train it again")


def _of_adapter(run: Path) -> Settings:
    """Settings for an adapter that no run of this wrapper stands around."""
    place = f"{run / ADAPTER}: base_model_name_or_path"
    try:
        base = json.loads((run / ADAPTER).read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        raise ModelError(f"{run / ADAPTER} is damaged; fetch the adapter again") from None
    if not base or not isinstance(base, str):
        raise ModelError(f"{place} is not set; put the base model's path there")
    return Settings(base, (), "", locations={"model_path": place}, source=str(run / ADAPTER))


def _check_out(out: Path, settings: Settings) -> None:
    """Raise ConfigError where OUT_DIR holds something, or lies in what is merged."""
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"OUT_DIR {out} is not empty; name a directory that is, or a new one")
    for what, path in (("RUN_DIR", settings.adapter_path), ("the base model", settings.model_path)):
        if Path(path).expanduser().resolve() in out.resolve().parents:
            raise ConfigError(f"OUT_DIR {out} lies in {what} ({path}); name another")


def _unfinished(settings: Settings) -> bool:
    run = Path(settings.adapter_path)
    return (run / CONFIG).is_file() and not (run / RUN).is_file()


def serving(out: str, chats: bool) -> list[str]:
    """The lines that serve the merged model."""
    quoted = shlex.quote(out.rstrip("/") or out)
    code = (
        f"from transformers import pipeline; print(pipeline('text-generation', {out!r})('Hello'))"
    )
    lines = [
        "serve it:",
        f"  vllm serve {quoted}",
        f"  python convert_hf_to_gguf.py {quoted} --outfile {quoted}.gguf    (llama.cpp)",
        f"  python -c {shlex.quote(code)}",
    ]
    if not chats:
        lines.append("it has no chat template: ask it through /v1/completions")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    try:
        with Stop():
            settings = merge_settings(arguments.run_dir, arguments.out_dir)
            settle_environment(settings)
            if _unfinished(settings):
                _say(
                    f"{settings.adapter_path} has no {RUN}: its run has not finished; the adapter "
                    "that stands there is merged"
                )
            # Imports torch and trl, which takes seconds: not before the paths are right.
            from dpo_wrap.merge_adapter import merge_adapter
            from dpo_wrap.system_errors import system_errors_reported

            with system_errors_reported(Path(settings.output_dir), AGAIN, LESS):
                merged = merge_adapter(settings, arguments.dtype, arguments.tolerance, _say)
    except DpoWrapError as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 1
    _say(f"merged: {arguments.out_dir}, weights in {merged.dtype}, with tokenizer")
    _say("\n".join(serving(arguments.out_dir, merged.chats)))
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    exit_with(main())
