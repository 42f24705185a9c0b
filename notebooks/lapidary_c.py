"""lapidary_c - liblapidary.so as ctypes sees it: where it is, its small structs and constants, its functions.

lapidary.py is what a person uses.  The structs here repeat those of the headers (core/hooks.h, sae/encode.h, ...); before
anything is called they are compared field by field with what the library itself tells (notebooks/flat.h), so that a library
of another version is an ImportError and not a wrong number.
"""
import ctypes as c
import os
import pathlib

_here = pathlib.Path(__file__).resolve().parent


def _places():
    """Where the library may be, best first: what LAPIDARY_LIBRARY says; the build beside this folder; the installation."""
    chosen = os.environ.get("LAPIDARY_LIBRARY")
    if chosen:
        return [chosen]
    build, prefix = _here.parent / "build", _here.parents[2] if len(_here.parents) > 2 else _here
    found = [build / "liblapidary.so", prefix / "lib" / "liblapidary.so", prefix / "lib64" / "liblapidary.so"]
    return [str(p) for p in [*found, *sorted(prefix.glob("lib/*/liblapidary.so"))] if p.exists()] + ["liblapidary.so.0"]


def _load():
    tried = []
    for place in _places():
        try:
            return c.CDLL(place)
        except OSError as e:
            tried.append(str(e))
    raise ImportError("liblapidary.so cannot be loaded: build it (cmake --build --preset release) or set LAPIDARY_LIBRARY; "
                      + "; ".join(tried))


# ---- structs ---------------------------------------------------------------------------------------------------------

STRUCTS = {}
P, I, Z, F, D, S = c.c_void_p, c.c_int, c.c_size_t, c.c_float, c.c_double, c.c_char_p


def _struct(name, /, **fields):
    STRUCTS[name] = type(name, (c.Structure,), {"_fields_": list(fields.items())})
    return STRUCTS[name]


LOG = c.CFUNCTYPE(None, P, I, S)
PROGRESS = c.CFUNCTYPE(None, P, S, c.c_int64, c.c_int64)
HOOK = c.CFUNCTYPE(I, P, P)
GENERATED = c.CFUNCTYPE(I, P, P)

lp_error = _struct("lp_error", status=I, text=c.c_char * 1024)
lp_env = _struct("lp_env", pool=P, kernels=P, cancel=P, log=LOG, progress=PROGRESS, user=P)
lp_config = _struct("lp_config", n_layers=I, d_model=I, n_heads=I, n_kv_heads=I, head_dim=I, d_ff=I, vocab=I,
                    max_positions=I, window=I, rope_theta=D, rms_eps=D, query_pre_attn_scalar=D, attn_softcap=D,
                    final_softcap=D, sliding=c.c_bool * 256, bos=I, eos=I, pad=I, norms_hold_gain=c.c_bool)
lp_act = _struct("lp_act", site=I, layer=I, branch=I, pos=I, rows=I, heads=I, width=I, x=P)
lp_hook = _struct("lp_hook", site=I, layer=I, edits=c.c_bool, fn=HOOK, user=P)
lp_tape = _struct("lp_tape", x=P, n_layers=I, first_pos=I, n_pos=I, width=I, heads=I)
lp_session_options = _struct("lp_session_options", arithmetic=I, wave=I, n_ctx=I, bf16_embed_scale=I)
lp_bias = _struct("lp_bias", id=I, add=F)
lp_sample_options = _struct("lp_sample_options", temperature=D, top_k=I, top_p=D, min_p=D, repetition=D, presence=D,
                            frequency=D, penalty_window=I, bias=P, n_bias=I, order=I, seed=c.c_uint64)
lp_scored = _struct("lp_scored", id=I, score=F)
lp_generated = _struct("lp_generated", index=I, pos=I, id=I, text=P, len=Z, logprob=F, top=P, n_top=I, finish=I)
lp_generate_options = _struct("lp_generate_options", max_tokens=I, stop=P, n_stop=I, stop_ids=P, n_stop_ids=I,
                              ignore_eos=I, show_specials=I, logprobs=I, n_top=I, fn=GENERATED, user=P)
lp_generation = _struct("lp_generation", ids=P, logprobs=P, n=Z, text=P, len=Z, finish=I, stop_string=I,
                        capacity_ids=Z, capacity_logprobs=Z, capacity_text=Z)
lp_tokens = _struct("lp_tokens", ids=P, spans=P, n=Z, capacity=Z)
lp_features = _struct("lp_features", n_rows=I, start=P, index=P, value=P, capacity_rows=Z, capacity_values=Z,
                      capacity_index=Z)
lp_steer_context = _struct("lp_steer_context", n_prompt=I, ids=P, is_template=P, text=S, len=Z, spans=P, reads_back=I)
lp_steer_reading = _struct("lp_steer_reading", pos=I, edit=I, asked=F, before=F, achieved=F, status=I)
lp_steer_move = _struct("lp_steer_move", pos=I, site=I, layer=I, relative=F)
lp_flat_sae = _struct("lp_flat_sae", name=S, path=S, kind=S, hash=S, site=I, layer=I, d_in=I, d_sae=I, d_out=I,
                      needs_input=I, is_bf16=I, declared_l0=D, decoder=P, b_enc=P, b_dec=P, threshold=P)

CONSTANTS = dict(LP_OK=0, LP_STOPPED=1, LP_CANCELLED=2, LP_E_RANGE=-6, LP_EXACT=0, LP_FAST=1, LP_N_SITES=31, LP_WHOLE_MODEL=-1,
                 LP_EVERY_LAYER=-2, LP_SCORES=10, LP_PATTERN=11, LP_SPECIALS_SENTENCEPIECE=0, LP_SPECIALS_LITERAL=1,
                 LP_SPECIALS_PARSED=2, LP_EFFECT_PLAIN=0, LP_EFFECT_GAINED=1, LP_ORDER_HF=0, LP_ORDER_LLAMA=1,
                 LP_FINISH_NONE=0, LP_WARN=1)
globals().update(CONSTANTS)


class _Field(c.Structure):  # lp_flat_field
    _fields_ = [("of", S), ("name", S), ("offset", c.c_int64), ("size", c.c_int64), ("is_real", I)]


def c_side(library):
    """What C says: {(struct, field): (offset, size, is it a float)}; ("", name) is a constant, (struct, "") the whole struct."""
    n = Z()
    library.lp_flat_fields.restype = c.POINTER(_Field)
    rows = library.lp_flat_fields(c.byref(n))
    return {(rows[i].of.decode(), rows[i].name.decode()): (rows[i].offset, rows[i].size, rows[i].is_real) for i in range(n.value)}


def python_side(structs=STRUCTS, constants=CONSTANTS):
    """The same of the declarations above."""
    said = {("", name): (value, 0, 0) for name, value in constants.items()}
    for name, struct in structs.items():
        said[name, ""] = (0, c.sizeof(struct), 0)
        for field, kind in struct._fields_:
            at = getattr(struct, field)
            said[name, field] = (at.offset, at.size, int(kind in (F, D)))
    return said


def differences(there, here):
    """One line for every struct, field and constant that is not the same on both sides."""
    return [f"{'.'.join(k).strip('.')}: the library has {there.get(k)}, lapidary_c.py {here.get(k)}"
            for k in sorted(there.keys() | here.keys()) if there.get(k) != here.get(k)]


# ---- functions: name, result, arguments -------------------------------------------------------------------------------

E = c.POINTER(lp_error)  # NULL: None
FUNCTIONS = [
    ("lp_pool_new", I, P, I, E), ("lp_pool_free", None, P), ("lp_pool_threads", I, P),
    ("lp_model_name", I, P, S, S, E), ("lp_model_open", I, P, S, P, P, E), ("lp_model_close", None, P),
    ("lp_flat_config", P, P), ("lp_flat_tokenizer", P, P), ("lp_flat_model_path", S, P), ("lp_config_family", S, P),
    ("lp_tokenizer_bos", I, P), ("lp_tokenizer_encode", I, P, S, Z, I, P, E), ("lp_tokens_free", None, P),
    ("lp_tokenizer_decode", I, P, P, Z, I, P, P, E), ("lp_flat_free", None, P),
    ("lp_session_new", I, P, P, P, P, E), ("lp_session_free", None, P), ("lp_session_eval", I, P, P, Z, E),
    ("lp_session_peek", I, P, P, Z, I, E), ("lp_session_pos", I, P), ("lp_session_tokens", P, P),
    ("lp_session_logits", P, P), ("lp_session_rewind", I, P, I, E), ("lp_session_fork", I, P, P, I, E),
    ("lp_session_hook", I, P, lp_hook, E), ("lp_session_unhook", None, P, I), ("lp_session_edited_from", I, P),
    ("lp_session_unembed", I, P, P, I, P, E), ("lp_session_kernels", S, P), ("lp_tap", lp_hook, I, I, P),
    ("lp_site_name", S, I), ("lp_site_has_layer", c.c_bool, I), ("lp_site_parse", I, S, P, P, E),
    ("lp_site_tensor_name", S, P, Z, I, I), ("lp_site_shape", None, P, I, I, P, P),
    ("lp_sampler_new", I, P, I, P, E), ("lp_sampler_free", None, P), ("lp_generate_prompt", I, P, P, Z, E),
    ("lp_generate", I, P, P, P, P, E), ("lp_generation_free", None, P), ("lp_finish_name", S, I),
    ("lp_flat_sae_open", I, P, P, S, S, I, P, E), ("lp_flat_sae_look", None, P, P), ("lp_sae_close", None, P),
    ("lp_flat_labels_free", None, P), ("lp_label_text", S, P, I), ("lp_label_max", F, P, I), ("lp_sae_fits", I, P, P, E),
    ("lp_sae_decoder_row", None, P, I, P), ("lp_sae_encoder_row", None, P, I, P),
    ("lp_encoder_new", I, P, P, I, P, E), ("lp_encoder_free", None, P), ("lp_encode", I, P, P, P, I, E),
    ("lp_encode_dense", I, P, P, P, I, E), ("lp_decode", None, P, P, P, P), ("lp_features_free", None, P),
    ("lp_feature_direction", I, P, P, I, P, P, E), ("lp_logit_effect", I, P, P, I, P, P, E),
    ("lp_reader_new", I, P, P, P, I, P, E), ("lp_reader_free", None, P), ("lp_reader_explain", I, P, I, E),
    ("lp_reader_features", P, P, I), ("lp_reader_first", I, P),
    ("lp_flat_recipe_open", I, P, S, S, E), ("lp_flat_recipe_free", None, P), ("lp_recipe_text", I, P, P, E),
    ("lp_recipe_fill", None, P, S, P), ("lp_steer_new", I, P, P, P, P, I, P, E), ("lp_steer_free", None, P),
    ("lp_steer_prompt", I, P, P, E), ("lp_steer_token", I, P, I, I, E), ("lp_steer_generated", I, P, P),
    ("lp_steer_explain", I, P, I, E), ("lp_steer_readback", I, P, P, P, E), ("lp_steer_moves", I, P, P, P, E),
    ("lp_steer_status_name", S, I),
]

lib = _load()
_wrong = differences(c_side(lib), python_side())
if _wrong:
    raise ImportError(f"{lib._name} and lapidary_c.py are not of one version: " + "; ".join(_wrong[:3]))
for _name, _result, *_arguments in FUNCTIONS:
    _f = getattr(lib, _name)
    _f.restype, _f.argtypes = _result, _arguments
