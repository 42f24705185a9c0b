"""A run: a folder with a checkpoint and a log, which can be stopped at any step and gone on with later.

    WORK/<name>/checkpoint.pt   weights, optimizer, order of the data, step: written beside and renamed, so that a
                                kill at any moment leaves the last one whole
    WORK/<name>/log.jsonl       one line a report

Stopped by its own clock (minutes), by SIGTERM or SIGINT, a run saves and ends; stopped by SIGSTOP it only waits.  While
the pause file exists, it sleeps: something else wants the machine.
"""
import json
import os
import pathlib
import signal
import time

import torch

SAVE_EVERY = 300        # seconds


class Run:
    def __init__(self, work, name, minutes=None, pause=None):
        self.folder = pathlib.Path(work) / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "checkpoint.pt"
        self.pause = pathlib.Path(pause) if pause else None
        self.ends = time.monotonic() + 60 * minutes if minutes else None
        self.saved = time.monotonic()
        self.told_to_stop = False
        for s in (signal.SIGTERM, signal.SIGINT):
            signal.signal(s, self._stop)

    def _stop(self, *_):
        self.told_to_stop = True

    def load(self):
        return torch.load(self.path, weights_only=False) if self.path.exists() else None

    def save(self, state):
        half = self.path.with_suffix(".part")
        torch.save(state, half)
        os.replace(half, self.path)
        self.saved = time.monotonic()

    def go_on(self, save=None):
        """False when it is time to stop.  Sleeps while paused, having saved; that time does not count as minutes."""
        began = time.monotonic()
        if save and self.pause and self.pause.exists():
            save()
        while self.pause and self.pause.exists() and not self.told_to_stop:
            time.sleep(2)
        if self.ends:
            self.ends += time.monotonic() - began
        return not self.told_to_stop and not (self.ends and time.monotonic() > self.ends)

    def wants_saving(self):
        return time.monotonic() - self.saved > SAVE_EVERY

    def log(self, **what):
        line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in what.items()})
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as f:
            f.write(line + "\n")
        print(line, flush=True)


def latest(work, name):
    """The checkpoint of a run, to begin another from."""
    path = pathlib.Path(work) / name / "checkpoint.pt"
    if not path.exists():
        raise SystemExit(f"{path}: no such run yet")
    return torch.load(path, weights_only=False)
