"""notebooks/lapidary.py on the embedded default: its bits are the program's, its views are the engine's memory, a hook may do
what it may and no more, and no order of closing or collecting brings the process down.

    python oracle_python.py PATH_OF_lapidary PATH_OF_liblapidary.so
"""
import ctypes
import doctest
import gc
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading

import numpy as np
from safetensors.numpy import load_file

PROGRAM, os.environ["LAPIDARY_LIBRARY"] = map(os.path.abspath, sys.argv[1:3])
NOTEBOOKS = pathlib.Path(__file__).resolve().parents[1] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
import lapidary  # noqa: E402
import lapidary_c as C  # noqa: E402

TEXT, SAE = "Once upon a time there was a ship", "3-lapidary-res-2k"
model = lapidary.Model("base")
sae = lapidary.SAE.open(SAE, model)
IDS = model.encode(TEXT)


def run(*words):
    return subprocess.run([PROGRAM, *map(str, words), "-q"], check=True, stdout=subprocess.PIPE).stdout


def same(a, b):
    """Equal to the bit, type and shape too."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def refused(kind, f, *args, say="", **named):
    try:
        f(*args, **named)
    except kind as e:
        assert say in str(e), (say, str(e))
        return e
    raise AssertionError(f"{f} was not refused")


def error(f, *args, say="", **named):
    return refused(lapidary.LapidaryError, f, *args, say=say, **named)


def evaluated(ids=IDS):
    s = model.session()
    s.eval(ids)
    return s


# ---- layouts

def test_structs_are_those_of_c():
    there, here = C.c_side(C.lib), C.python_side()
    assert there and not C.differences(there, here)
    for name, struct in C.STRUCTS.items():  # each way a header may change shows
        fields = struct._fields_
        other = {"a field less": fields[:-1], "a field more": [*fields, ("more", ctypes.c_double)],
                 "another type": [(fields[0][0], ctypes.c_char * 3), *fields[1:]]}
        twin = {C.I: C.F, C.F: C.I, C.D: ctypes.c_int64}
        for i, (field, kind) in enumerate(fields):
            if kind in twin:  # as large, and another thing
                other[f"another {field}"] = [*fields[:i], (field, twin[kind]), *fields[i + 1:]]
        if len(fields) > 1:
            other["another order"] = [fields[1], fields[0], *fields[2:]]
            other["another name"] = [("another", fields[0][1]), *fields[1:]]
        for what, changed in other.items():
            made = {**C.STRUCTS, name: type(name, (ctypes.Structure,), {"_fields_": changed})}
            assert C.differences(there, C.python_side(made)), (name, what)
    for name, value in C.CONSTANTS.items():
        assert C.differences(there, C.python_side(constants={**C.CONSTANTS, name: value + 1})), name


def kind_of(text):
    """A parameter or result as a header has it -> what ctypes must be given."""
    words = text.replace("const ", "").replace("struct ", "").split()
    if "*" in text or "[" in text:
        return "pointer"
    known = {"void": "nothing", "float": "float", "double": "double", "size_t": "size", "bool": "bool", "lp_hook": "hook"}
    return known.get(words[0], "int" if words[0] == "int" or words[0].startswith("lp_") else text)


def kind_here(t):
    known = {None: "nothing", C.F: "float", C.D: "double", C.Z: "size", ctypes.c_bool: "bool", C.lp_hook: "hook", C.I: "int"}
    return known.get(t, "pointer")


def test_functions_are_those_of_the_headers():
    root = NOTEBOOKS.parent
    text = "\n".join(p.read_text() for d in ("core", "sae", "notebooks") for p in sorted((root / d).glob("*.h")))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    for name, result, *arguments in C.FUNCTIONS:
        found = re.findall(r"^([a-z][\w \*]*?)\b%s\(([^;]*)\)" % name, text, flags=re.M)
        assert len(found) == 1, (name, found)
        want = [kind_of(x) for x in found[0][1].split(",")]
        assert [kind_here(x) for x in arguments] == want, (name, want)
        assert kind_here(result) == kind_of(found[0][0]), (name, found[0][0])


def test_only_our_names_are_exported():
    said = subprocess.run(["nm", "-D", "--defined-only", sys.argv[2]], check=True, stdout=subprocess.PIPE, text=True).stdout
    names = [line.split()[-1] for line in said.splitlines()]
    assert len(names) > 100 and all(n.startswith("lp_") for n in names), [n for n in names if not n.startswith("lp_")]


# ---- the same bits as the program

def test_every_site_is_the_programs():
    out = pathlib.Path(tempfile.mkdtemp()) / "all.safetensors"
    run("trace", "-m", "base", "--tokens", ",".join(map(str, IDS)), "--sites", "all", "-o", out)
    want = load_file(out)
    s = model.session()
    got = s.run_with_cache(IDS, [C.lib.lp_site_name(i).decode() for i in range(C.LP_N_SITES)])
    assert set(got) == set(want) and all(same(got[k], want[k]) for k in want), [k for k in want if not same(got[k], want[k])]
    assert same(s.logits, want["logits"][-1]) and same(got["resid_post", 3], want["blocks.3.hook_resid_post"])
    assert s.pos == len(IDS) and s.edited_from == -1 and list(s.tokens) == list(IDS)
    assert same(s.unembed(got["resid_post", 5]), want["logits"])  # the last layer's lens is the model
    out.unlink()
    out.parent.rmdir()


def test_text_and_drawing_are_the_programs():
    said = json.loads(run("generate", "-m", "base", TEXT, "-n", 24, "-T", 0.9, "--top-k", 40, "--seed", 7, "--logprobs", 1, "--json"))
    s = model.session()
    tokens = []
    g = s.generate(TEXT, 24, temperature=0.9, top_k=40, seed=7, logprobs=True, on_token=tokens.append)
    assert list(IDS) == said["prompt"] and g.text == said["text"] and g.finish == said["finish"]
    assert [int(i) for i in g.ids] == [t["id"] for t in said["tokens"]] == [t.id for t in tokens]
    assert same(g.logprobs, np.array([t["logprob"] for t in said["tokens"]], np.float32))
    assert "".join(t.text for t in tokens) == g.text
    assert s.generate(TEXT, 24, on_token=lambda t: t.index == 2).finish == "stopped"
    assert model.decode(IDS) == TEXT and model.encode(TEXT, bos=False)[0] == IDS[1]


def test_features_are_the_programs():
    said = json.loads(run("features", "-m", "base", TEXT, "--sae", SAE, "--top", 0, "--bos", "--json"))
    want = sorted((f["pos"], f["index"], np.float32(f["activation"])) for f in said["features"])
    s = model.session()
    f = sae.features(s, IDS)
    rows = np.repeat(np.arange(len(IDS)), np.diff(f.indptr))
    assert len(want) > 50 and [(int(r), int(i), v) for r, i, v in zip(rows, f.indices, f.data)] == want
    assert said["saes"][0]["hash"] == sae.hash
    s.rewind()
    alone = sae.encode(s.run_with_cache(IDS, f"{sae.site}.{sae.layer}")[sae.site, sae.layer])
    assert all(same(a, b) for a, b in zip(alone, f))
    named = {f["index"]: f["label"] for f in said["features"] if f["label"]}
    assert named and all(sae.labels[i] == text for i, text in named.items())


def test_a_csr_is_scipys():
    import scipy.sparse as sparse
    x = model.session().run_with_cache(IDS, "resid_post.3")["resid_post", 3]
    f = sae.encode(x)
    dense = sparse.csr_matrix((f.data, f.indices, f.indptr), shape=(len(x), sae.d_sae)).toarray()
    pre = sae.encode_dense(x)
    assert same(dense, np.where(pre > sae.threshold, np.maximum(pre, 0), 0).astype(np.float32))
    want = dense.astype(np.float64) @ sae.W_dec.astype(np.float64) + sae.b_dec
    assert np.abs(sae.decode(f) - want).max() < 1e-4 * np.abs(want).max()
    assert same(sae.W_dec[449], sae.decoder_row(449)) and len(sae.encoder_row(0)) == sae.d_in
    error(sae.decode, ([0, 5], [1], [1.0]), say="not a CSR")
    error(sae.decode, ([0, 1], [sae.d_sae], [1.0]), say="features 0 to")
    error(sae.encode, x[:, :-1], say="expected [n, 192]")
    error(sae.decoder_row, -1, say="features 0 to")
    from safetensors.torch import load_file as load_torch  # numpy has no bf16
    table = load_torch(pathlib.Path(model.path) / "model.safetensors")["model.embed_tokens.weight"].double().numpy()
    effects = table @ sae.decoder_row(449).astype(np.float64)
    assert np.abs(sae.logit_effects(449) - effects).max() < 1e-4 * np.abs(effects).max()


# ---- hooks

class lp_edit(ctypes.Structure):  # core/edit.h
    _fields_ = [("kind", ctypes.c_int), ("v", ctypes.c_void_p), ("stride", ctypes.c_size_t), ("scale", ctypes.c_float),
                *[(n, ctypes.c_int) for n in ("from_", "to", "head", "one_head", "keys")]]


def test_a_hook_edits_as_c_does():
    v = sae.decoder_row(449)
    edit = lp_edit(0, v.ctypes.data, 0, 10, 0, 2**31 - 1)
    C.lib.lp_edit_hook.restype, C.lib.lp_edit_hook.argtypes = C.lp_hook, [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    in_c, in_python, plain = model.session(), model.session(), model.session()
    h = C.lib.lp_edit_hook(26, 3, ctypes.addressof(edit))
    assert C.lib.lp_site_name(26) == b"resid_post" and C.lib.lp_session_hook(in_c._p, h, None) > 0

    def push(act):
        act.x[:] += np.float32(10) * v

    in_python.hook("resid_post", 3, push, edits=True)
    c_said, python_said, plain_said = (s.generate(TEXT, 20) for s in (in_c, in_python, plain))
    assert same(c_said.ids, python_said.ids) and not same(plain_said.ids, python_said.ids)
    assert same(in_c.logits, in_python.logits) and not same(plain.logits, in_python.logits)
    assert in_python.edited_from == in_c.edited_from == 0 and plain.edited_from == -1


def test_a_hook_edits_as_a_recipe_does():
    """The recipe adds in double, once (sae/steer.h); and what it says of itself is true."""
    recipe = {"format": "lapidary-recipe", "version": 1, "scope": {"prompt": True, "generated": True},
              "features": [{"layer": SAE, "index": 449, "kind": "add", "strength": 10.0}]}
    v = sae.decoder_row(449).astype(np.float64)

    def push(act):
        first = 1 if act.pos == 0 else 0  # not <bos>
        act.x[first:] = (act.x[first:] + 10 * v).astype(np.float32)

    a, b = model.session(), model.session()
    a.hook("resid_post", 3, push, edits=True)
    with b.steer(recipe, reads_back=True) as steer:
        x, y = a.generate(TEXT, 20), b.generate(TEXT, 20)
        assert same(x.ids, y.ids) and same(a.logits, b.logits)
        assert list(steer.moves()["pos"]) == list(range(1, b.pos)) and steer.recipe["features"][0]["index"] == 449
        assert len(steer.readback()) == b.pos - 1 and steer.saes[0].d_sae == 2048
    said = json.loads(run("steer", "-m", "base", "--recipe", "sea", TEXT, "-n", 20, "--json"))
    with model.session() as c:
        c.steer("sea")
        assert c.generate(TEXT, 20).text == said["steered"]["text"] != said["baseline"]["text"]
    error(model.session().steer, {**recipe, "nmae": "x"}, say="nmae")
    error(model.session().steer, recipe, [], say=SAE)


def test_generated_can_be_told_from_given():
    recipe = {"format": "lapidary-recipe", "version": 1, "scope": {"prompt": False, "generated": True},
              "features": [{"layer": SAE, "index": 449, "kind": "add", "strength": 10.0}]}
    by_hand, given, plain, whole = (model.session() for _ in range(4))
    for s in (by_hand, given, whole):
        s.steer(recipe, [sae])
    drawn = whole.generate(TEXT, 9).ids
    by_hand.eval(IDS)
    for token in drawn[:-1]:
        by_hand.eval([token], generated=True)
    for s in (given, plain):
        s.eval(np.concatenate([IDS, drawn[:-1]]))
    assert same(by_hand.logits, whole.logits) and same(given.logits, plain.logits) and not same(plain.logits, whole.logits)


def test_a_hook_added_late_sees_the_whole_prompt():
    late, fresh = evaluated(), model.session()
    for s in (late, fresh):
        s.hook("resid_post", 3, lambda act: act.x * np.float32(0.5), edits=True)
    x, y = late.generate(IDS, 8), fresh.generate(IDS, 8)
    assert same(x.ids, y.ids) and same(late.logits, fresh.logits) and late.edited_from == 0


def test_a_hook_sees_prompt_and_generated_tokens():
    s, seen, held = model.session(wave=4), [], []

    def look(act):
        seen.append((act.site, act.layer, act.pos, act.rows, act.x.shape))
        held.append(act.x)

    with s.hook("q", 2, look) as handle:
        s.generate(IDS, 3)
        handle.remove()
        handle.remove()
    n = len(IDS)
    assert sum(r for *_, r, _ in seen) == n + 2 and seen[-1] == ("q", 2, n + 1, 1, (1, 4, 48)), seen
    assert not any(x.flags.writeable for x in held)
    s.eval([5])
    assert sum(r for *_, r, _ in seen) == n + 2  # removed


def test_a_reading_hook_cannot_write():
    s, clean = model.session(), evaluated()

    def write(act):
        act.x[0, 0, 0] = 1

    def unlock(act):
        act.x.flags.writeable = True

    for fn in (write, unlock):
        with s.hook("resid_post", 3, fn):
            refused(ValueError, s.eval, IDS)
    with s.hook("resid_post", 3, lambda act: act.x * 2):
        error(s.eval, IDS, say="edits=False")
    assert s.pos == 0
    s.eval(IDS)
    assert same(s.logits, clean.logits)
    with s.hook("resid_post", 3, lambda act: act.x * 0, edits=True):  # an array that replaces
        s.eval(IDS[:1])
    assert not same(s.logits, clean.logits)


def test_an_exception_in_a_hook_comes_out_of_eval():
    class Mine(Exception):
        pass

    def fail(act):
        if act.pos + act.rows > len(IDS) + 1:
            raise Mine("at", act.pos)

    s = evaluated()
    before = s.logits.copy()
    with s.hook("mlp_out", 5, fail):
        assert refused(Mine, s.eval, [7, 8]).args == ("at", len(IDS))
        assert s.pos == len(IDS) and same(s.logits, before)
        refused(Mine, s.generate, None, 5)
    s.rewind(len(IDS))
    s.eval([7, 8])
    assert same(s.logits, evaluated([*IDS, 7, 8]).logits)
    refused(Mine, s.generate, TEXT, 5, on_token=lambda t: (_ for _ in ()).throw(Mine()))


def test_a_hook_may_not_call_its_own_session():
    s, other, tried = model.session(), evaluated(), []

    def meddle(act):
        for f in (lambda: s.eval([1]), lambda: s.rewind(0), s.fork, s.close, model.close, lambda: s.hook("q", 0, print),
                  handle.remove, lambda: s.read(sae), lambda: s.generate([1])):
            tried.append(error(f, say="of the same session" if f not in (s.fork,) else ""))
        other.eval([1])  # another session is another matter

    handle = s.hook("resid_post", 0, meddle)
    s.eval(IDS)
    assert len(tried) == 9 and other.pos == len(IDS) + 1 and s.pos == len(IDS)


def test_interrupting():
    s, n = model.session(), []

    def interrupt(act):
        n.append(act.layer)
        os.kill(os.getpid(), signal.SIGINT)

    with s.hook("resid_pre", 1, interrupt):
        refused(KeyboardInterrupt, s.eval, IDS)
    assert n == [1] and s.pos == 0 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    s.eval(IDS)
    assert same(s.logits, evaluated().logits)


def test_two_threads_take_turns():
    want, got = evaluated().logits.copy(), {}

    def work(k):
        s = model.session()
        for token in IDS:
            s.eval([token])
        got[k] = s.logits.copy()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(got) == 4 and all(same(x, want) for x in got.values())


# ---- timelines and views

def test_timelines():
    s = evaluated()
    logits = s.logits.copy()
    f = s.fork(3)
    error(lambda: f.logits, say="no logits")
    f.eval(IDS[3:])
    assert same(f.logits, logits) and same(s.fork().logits, logits)
    seen = []
    with s.hook("resid_post", None, lambda act: seen.append(act.layer)):
        s.peek([5], 2)
    assert seen == [0, 1, 2] and s.pos == len(IDS) and same(s.logits, logits)
    s.rewind(3)
    assert s.pos == 3
    with s.tap("pattern", 2, 6) as tap:
        s.eval(IDS[3:6])
    cached = model.session().run_with_cache(IDS[:6], "pattern.2")["pattern", 2]
    assert same(tap.x[:3, :, :6], cached[3:]) and tap.x.shape == (6, 4, 9)
    error(s.eval, [10**6], say="ids run from 0")
    error(s.eval, [1.5], say="whole numbers")
    error(s.eval, [2**40 + 5], say="32 bits")
    error(s.rewind, 99, say="positions 0 to")
    error(s.hook, "resid_pots", 1, print, say="resid_post")
    error(s.hook, "logits", 1, print, say="no layers")
    error(s.hook, "resid_post", 6, print, say="layers 0 to 5")
    error(s.hook, "resid_post", 1, say="function")


def test_views_are_the_engines_memory():
    s = evaluated()
    where = C.lib.lp_session_logits(s._p)
    a, b = s.logits, s.logits
    assert a.ctypes.data == where and np.shares_memory(a, b) and not a.flags.owndata and not a.flags.writeable
    assert sae.W_dec.ctypes.data == sae._look.decoder and np.shares_memory(sae.W_dec, sae.W_dec[7:9])
    refused(ValueError, sae.W_dec.__setitem__, 0, 1)
    with s.tap("resid_post", 3, 4) as tap:
        assert tap.x.ctypes.data == tap._tape.x and tap.x.flags.owndata
    seen = []
    with s.hook("resid_post", 3, lambda act: seen.append(act.x), edits=True), s.hook("resid_post", 3, lambda act: seen.append(act.x)):
        s.eval([5])
    assert np.shares_memory(*seen) and not seen[0].flags.owndata


def test_views_outlive_what_they_look_at():
    m = lapidary.Model("base")
    s = m.session()
    s.eval(IDS)
    logits, want = s.logits[10:], s.logits[10:].copy()
    own = lapidary.SAE.open(SAE)
    rows, W = own.W_dec[449:450], own.decoder_row(449)
    m.close()
    own.close()
    del m, s, own
    gc.collect()
    assert same(logits, want) and same(rows[0], W)
    del logits, rows
    gc.collect()


# ---- closing

def test_after_close_there_is_an_error():
    m = lapidary.Model("base")
    own = lapidary.SAE.open(SAE, m)
    s = m.session()
    s.eval(IDS)
    handle, reader, steer = s.hook("q", 0, print), s.read(own), s.steer("sea", [own])
    own.close()  # the reader and the steering still need it
    handle.remove()
    s.eval([5])
    assert len(reader.features().indptr) == 2 and reader.first == len(IDS)
    m.close()
    m.close()
    handle.remove()
    for f in (lambda: m.config, lambda: m.encode("x"), m.session, lambda: m.path, m.__enter__):
        error(f, say="this Model is closed")
    for f in (lambda: s.eval([1]), lambda: s.logits, lambda: s.pos, lambda: s.rewind(0), s.fork, lambda: s.hook("q", 0, print),
              lambda: s.generate("x"), lambda: s.read(sae), lambda: s.run_with_cache([1], "q"), lambda: s.peek([1], 0)):
        error(f, say="is closed")
    for f in (lambda: own.encode(np.zeros(192)), lambda: own.W_dec, lambda: own.labels, lambda: own.decoder_row(0),
              lambda: own.logit_effects(0), lambda: own.decode(([0], [], []))):
        error(f, say="is closed")
    error(reader.features, say="this Reader is closed")
    error(steer.readback, say="this Steer is closed")
    error(lapidary.Model, "no-such-model", say="no-such-model")
    error(lapidary.SAE.open, "3-lapidary-res-9k", model)
    with model.session() as t:
        t.eval(IDS)
    error(lambda: t.logits, say="closed")


def test_any_order_of_collecting():
    """Every order in which names can go, also as one cycle, in a process of its own: a crash there is a status here."""
    code = """if True:
        import gc, itertools, sys
        import lapidary
        for order in itertools.permutations(range(5)):
            m = lapidary.Model("base")
            a = lapidary.SAE.open("3-lapidary-res-2k", m)
            s = m.session()
            s.hook("resid_post", 3, lambda act, s=s: None)
            r, f = s.read(a), s.fork()
            s.eval([2, 5])
            view = s.logits
            named = [m, a, s, r, f]
            del m, a, s, r, f
            for k in order:
                named[k] = None
                gc.collect()
            total = float(view.sum())
            del view
        gc.collect()
        for way in range(20):
            m = lapidary.Model("base")
            a, s = lapidary.SAE.open("3-lapidary-res-2k", m), m.session()
            st = s.steer("sea", [a])
            s.hook("resid_post", 3, lambda act, all=[m, a, s, st]: None)
            m.me = a.me = s.me = st.me = [m, a, s, st]
            s.eval([2, 5])
            del m, a, s, st
            gc.collect()
        kept = [o for o in gc.get_objects() if isinstance(o, (lapidary.Model, lapidary.Session, lapidary.SAE))]
        assert not kept, kept
        m, last = lapidary.Model("base"), None
        last = m.session()
        last.eval([2])
        print("whole")
    """
    said = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], cwd=NOTEBOOKS, stdout=subprocess.PIPE, text=True)
    assert said.returncode == 0 and said.stdout == "whole\n", said


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_times_leave_nothing():
    def once(k):
        with model.session(n_ctx=64) as s:
            s.hook("resid_post", 3, lambda act: None)
            s.eval(IDS[:2])
            s.fork().eval([5])
            sae.features(s, [6])
        if k % 50 == 0:
            with lapidary.Model("base", threads=1) as m, lapidary.SAE.open(SAE, m) as a, m.session() as s:
                s.steer("sea", [a])
                s.eval(IDS)

    for k in range(100):
        once(k)
    gc.collect()
    before = resident()
    for k in range(1000):
        once(k)
    gc.collect()
    assert resident() - before < 64 << 20, f"{(resident() - before) >> 20} MB more"
    print(f"1000 times: {(resident() - before) / 2**20:+.1f} MB")


def test_embedded_names():
    for name in ("chat", "draft", "shield"):
        with lapidary.Model(name) as m, m.session() as s:
            s.eval(m.encode("Hello"))
            assert np.isfinite(s.logits).all() and m.path.startswith(str(pathlib.Path(model.path).parent)), m.path


def test_the_example():
    failed, tried = doctest.testmod(lapidary)
    assert not failed and tried >= 6, (failed, tried)


tests = [f for name, f in list(globals().items()) if name.startswith("test_")]
for f in tests:
    f()
    print("ok", f.__name__)
