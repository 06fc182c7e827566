"""Measure wall time and peak memory on CPU or GPU, and suppress output."""

import contextlib
import ctypes
import gc
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class Meter:
    """Wall time (seconds) and added peak memory (bytes) from construction to `read`."""

    def __init__(self):
        import torch

        from dpo_wrap.diagnostics.memory import resident_bytes

        gc.collect()
        if gpu():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            # Memory freed by the previous variant would hide what this one needs.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self.before = resident_bytes("VmRSS:")
        self.started = time.perf_counter()

    def read(self) -> tuple[float, int]:
        import torch

        from dpo_wrap.diagnostics.memory import resident_bytes

        if gpu():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.started
        peak = torch.cuda.max_memory_allocated() if gpu() else resident_bytes("VmHWM:")
        return seconds, peak - self.before


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Discard standard output and standard error."""
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(output):
        yield


def must(main: Callable[[list[str]], int], words: list[str]) -> None:
    """Run a command in this process without output; exit with its output if it fails."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = main(words)
    if status:
        what = f"{main.__module__} {' '.join(words)}"
        raise SystemExit(f"{what} ended with {status}:\n{output.getvalue()}")


def gpu() -> bool:
    import torch

    return torch.cuda.is_available()
