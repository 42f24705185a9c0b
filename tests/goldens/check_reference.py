"""`lapidary verify --reference` on a file of make_reference.py, as a user with a checkpoint of their own would run it; and
that a reference which is off by little is noticed.

    python check_reference.py PATH_OF_lapidary MODEL_FOLDER
"""
import json
import pathlib
import subprocess
import sys
import tempfile

from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent


def verify(program, model, reference, *more):
    words = [program, "verify", "-m", model, "--reference", reference, "--only", "reference", "--json", "-q", *more]
    r = subprocess.run(words, capture_output=True, text=True)
    return r.returncode, json.loads(r.stdout) if r.stdout else None, r.stderr


def main():
    program, model = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        reference = str(pathlib.Path(folder, "ref.safetensors"))
        ids = ",".join(map(str, [2] + [(37 * i + 500) % 4000 for i in range(39)]))  # beyond the window of 16
        subprocess.run([sys.executable, str(HERE / "make_reference.py"), model, "--tokens", ids, "-o", reference], check=True)
        status, result, err = verify(program, model, reference)
        assert status == 0, err
        sites = {s["site"]: s for s in result["sites"]}
        assert len(sites) == 31 and sites["scores"]["rows"] == 4 * 40 and sites["logits"]["rows"] == 40, sorted(sites)
        assert all(s["worst"] < 2e-5 for s in sites.values()), sites
        print("worst of all sites:", max(s["worst"] for s in sites.values()))

        tensors = load_file(reference)
        tensors["blocks.2.attn.hook_z"][17, 1] *= 1.001
        save_file(tensors, reference)
        status, result, err = verify(program, model, reference)
        z = next(s for s in result["sites"] if s["site"] == "z")
        assert status == 1 and "z (exact)" in err and (z["layer"], z["row"]) == (2, 17), err

        del tensors["ids"]
        save_file(tensors, reference)
        assert verify(program, model, reference)[0] == 1


main()
