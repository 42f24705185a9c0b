"""helpers - what the notebooks share: the program, stores in a scratch folder, colours that everybody can tell apart.

Where the program is: $LAPIDARY_PROGRAM, else build/lapidary beside this folder, else the first `lapidary` of the PATH.
"""
import functools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import h5py
import matplotlib.pyplot as plt
import scipy.sparse

_above = pathlib.Path(__file__).resolve().parent.parent
DATA = pathlib.Path(os.environ.get("LAPIDARY_DATA") or (_above / "data" if (_above / "data").is_dir() else _above))

# Okabe and Ito's palette, https://jfly.uni-koeln.de/color/
BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999"
plt.rcParams.update({
    "axes.spines.top": False, "axes.spines.right": False, "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PURPLE, RED]),
    "axes.titlelocation": "left", "figure.dpi": 90, "figure.constrained_layout.use": True, "image.cmap": "cividis"})


def _program():
    here = _above / "build" / "lapidary"
    found = os.environ.get("LAPIDARY_PROGRAM") or (here if here.exists() else shutil.which("lapidary"))
    if not found:
        raise FileNotFoundError("no lapidary: build it (cmake --build --preset release) or set LAPIDARY_PROGRAM")
    return str(found)


def run(*words):
    """`lapidary WORDS --json` as a dict; its complaint as the exception's text."""
    done = subprocess.run([_program(), *map(str, words), "--json", "--quiet"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"lapidary ended with {done.returncode}")
    return json.loads(done.stdout)


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="lapidary-")  # gone when the notebook's kernel ends


def scratch(name):
    """A path for a file of this notebook alone."""
    return pathlib.Path(_folder().name) / name


def open_shards(store):
    """Every shard of a store, in order."""
    return [h5py.File(p) for p in sorted(pathlib.Path(store).glob("runs/*/shard-*.h5"))]


def csr(group):
    """The activations of an SAE, tokens x features: a row is a token."""
    return scipy.sparse.csr_matrix((group["data"][:], group["indices"][:], group["indptr"][:]), shape=group.attrs["shape"])


def csc(group):
    """The same matrix from by_feature: a column is a feature, and cheap to take out."""
    g = group["by_feature"]
    return scipy.sparse.csc_matrix((g["data"][:], g["indices"][:], g["indptr"][:]), shape=g.attrs["shape"])


def strings(shard, name):
    """documents/text or documents/key, cut into one string for each document."""
    raw, ptr = shard[f"documents/{name}"][:].tobytes(), shard[f"documents/{name}_ptr"][:]
    return [raw[a:b].decode(errors="replace") for a, b in zip(ptr, ptr[1:])]


def piece(model, token):
    """How a token is shown on an axis: spaces and line breaks visible."""
    text = model.decode([int(token)], specials=True)
    return text.replace(" ", "\N{OPEN BOX}").replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}") or "(none)"
