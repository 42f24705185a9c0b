"""Recipes in other programs' own writing: a steering CSV by pandas, a control vector by the gguf package as repeng and
llama.cpp's cvector-generator lay it out.  tests/test_exchange.c holds what must be read from them.

    python make_exchange_goldens.py [--check]
"""
import pathlib
import sys
import tempfile

import gguf
import numpy as np
import pandas as pd

HOME = pathlib.Path(__file__).resolve().parent / "exchange"
ROWS = [("res-canonical", "layers.20", 12082, 240.0, "layer_20/width_16k/canonical", 'he said "dogs", twice\nand went'),
        ("mlp", "layers.5.post_feedforward_layernorm", 3, -0.1, "layer_5/width_16k/average_l0_114", None),
        ("transcoders", "layers.7.post_feedforward_layernorm", 0, 1e-7, "layer_7/width_16k/average_l0_70", "last")]


def write(home):
    pd.DataFrame([{"loader": "sae_lens", "action": "add", "sparse_model": "gemma-scope-2b-pt-" + release, "hookpoint": hookpoint,
                   "feature_index": index, "steering_coefficient": coefficient, "head_index": None, "sae_id": sae,
                   "description": description} for release, hookpoint, index, coefficient, sae, description in ROWS]).to_csv(
                       home / "theirs.csv", index=False)
    w = gguf.GGUFWriter(home / "theirs.gguf", "controlvector")
    w.add_string("controlvector.model_hint", "gemma2")
    w.add_uint32("controlvector.layer_count", 3)
    for layer, x in ((10, [1, 0, 0, 0.25]), (3, [0, 0, 0, 0]), (2, [0.5, -1, 0, 2])):
        w.add_tensor(f"direction.{layer}", np.array(x, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if "--check" in sys.argv:
    with tempfile.TemporaryDirectory() as folder:
        write(pathlib.Path(folder))
        for name in ("theirs.csv", "theirs.gguf"):
            assert pathlib.Path(folder, name).read_bytes() == (HOME / name).read_bytes(), name
else:
    HOME.mkdir(exist_ok=True)
    write(HOME)
