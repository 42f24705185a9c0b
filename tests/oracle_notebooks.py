"""The notebooks, run from the first cell to the last: nothing raises (each asserts what it claims), and what is printed is what
the committed notebooks show, numbers to 2 %.

    python oracle_notebooks.py PATH_OF_lapidary PATH_OF_liblapidary.so            compares, writes nothing
    python oracle_notebooks.py PATH_OF_lapidary PATH_OF_liblapidary.so --update   runs them and keeps the outputs
"""
import math
import os
import pathlib
import re
import sys

try:
    import anndata  # noqa: F401
    import h5py  # noqa: F401
    import ipykernel  # noqa: F401
    import matplotlib  # noqa: F401
    import nbconvert
    import nbformat
    from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

NOTEBOOKS = pathlib.Path(__file__).resolve().parents[1] / "notebooks"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
BYTES, CELLS = 1_500_000, range(6, 15)


def tidied(notebook):
    """Without what differs from run to run or from machine to machine: times, versions."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                         "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def said(cell):
    """What a cell printed, pictures left out."""
    texts = []
    for o in cell.get("outputs", []):
        data = o.get("data", {})
        if o.output_type == "stream":
            texts.append(o.text)
        elif "image/png" not in data:
            texts.append(data.get("text/html") or data.get("text/plain", ""))
    return "".join(texts)


def same(a, b):
    numbers = zip(map(float, NUMBER.findall(a)), map(float, NUMBER.findall(b)))
    return NUMBER.sub("#", a) == NUMBER.sub("#", b) and all(math.isclose(x, y, rel_tol=0.02, abs_tol=0.02) for x, y in numbers)


def wrong(path, now, then):
    """What is not as it should be, a line each."""
    for i, (a, b) in enumerate(zip(now.cells, then.cells)):
        if a.cell_type == "code" and not same(said(a), said(b)):
            yield f"{path.name}, cell {i + 1}: prints\n{said(a)}\nwhere the notebook shows\n{said(b)}"
    pictures = [sum("image/png" in o.get("data", {}) for c in n.cells for o in c.get("outputs", [])) for n in (now, then)]
    if pictures[0] != pictures[1]:
        yield f"{path.name}: {pictures[0]} pictures where the notebook has {pictures[1]}"
    if any(o.get("name") == "stderr" for c in now.cells for o in c.get("outputs", [])):
        yield f"{path.name}: something was written to stderr"
    code = sum(c.cell_type == "code" for c in now.cells)
    if path.stat().st_size > BYTES or code not in CELLS:
        yield f"{path.name}: {path.stat().st_size} bytes and {code} cells of code: too long for a lesson"
    if tidied(nbformat.from_dict(then)) != nbformat.read(path, 4):
        yield f"{path.name}: holds times or versions; run with --update"


def main():
    os.environ["LAPIDARY_PROGRAM"], os.environ["LAPIDARY_LIBRARY"] = map(os.path.abspath, sys.argv[1:3])
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    found, failures = sorted(NOTEBOOKS.glob("[0-9][0-9]-*.ipynb")), 0
    chosen = [p for p in found if not sys.argv[4:] or p.name[:2] in sys.argv[4:]]
    for path in chosen:
        now = nbformat.read(path, 4)
        try:
            ExecutePreprocessor(timeout=300, kernel_name="python3").preprocess(now, {"metadata": {"path": str(NOTEBOOKS)}})
        except CellExecutionError as e:
            print(f"WRONG: {path.name}: {e}")
            failures += 1
            continue
        if sys.argv[3:4] == ["--update"]:
            nbformat.write(tidied(now), path)
        for fault in wrong(path, now, nbformat.read(path, 4)):
            print("WRONG:", fault)
            failures += 1
        print(f"{path.name}: run")
    print(f"{len(chosen)} notebooks by nbconvert {nbconvert.__version__}, {failures} failures")
    sys.exit(bool(failures) or len(found) != 6)


main()
