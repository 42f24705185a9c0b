"""lapidary_saes - SAE, Reader and Steer of lapidary.py: sparse autoencoders alone, and at work on a session."""
import ctypes as c
import json
from collections import namedtuple

import numpy as np

import lapidary_c as C
from lapidary_c import lib
from lapidary_own import Engine, Held, LapidaryError, Object, View, as_rows, call

CSR = namedtuple("CSR", "indptr indices data")
CSR.__doc__ = """Features of n rows: int64 [n + 1], int32 [nnz] ascending in a row, float32 [nnz] > 0.  numpy's own memory.
scipy.sparse.csr_matrix((f.data, f.indices, f.indptr), shape=(n, sae.d_sae))"""


def _copy(pointer, n, kind):
    kind = np.dtype(kind)
    return np.frombuffer(c.string_at(pointer, n * kind.itemsize), kind).copy() if n else np.empty(0, kind)


def _csr(f, first=0):
    """The rows of an lp_features from row `first` on, copied."""
    start = _copy(f.start, f.n_rows + 1, np.int64)[first:] if f.start and f.n_rows > first else np.zeros(1, np.int64)
    end = int(start[-1])
    return CSR(start - start[0], _copy(f.index, end, np.int32)[start[0]:], _copy(f.value, end, np.float32)[start[0]:])


class SAE(Object):
    """A sparse autoencoder, immutable.  name, path, kind, hash; site, layer: where it reads; d_in, d_sae, d_out;
    declared_l0 (0: it does not say)."""

    @classmethod
    def open(cls, name, model=None, labels=None, bf16=False):
        """name: as sae/names.h: a path, a SAELens or Neuronpedia id, a shipped one ("3-lapidary-res-2k").  model: it must
        fit it, and runs on its threads; needed for logit_effects.  labels: a folder of Neuronpedia exports (None: the
        shipped ones).  bf16: half the memory, no longer the exact numbers."""
        return cls(name, model, labels, bf16)

    def __init__(self, name, model=None, labels=None, bf16=False):
        self._model, self._engine = model, model._engine if model is not None else Engine(0)
        sae, named, encoder, env = c.c_void_p(), c.c_void_p(), c.c_void_p(), c.byref(self._engine.env)
        folder = str(labels).encode() if labels is not None else None
        try:
            with self._engine.turn():
                call(lib.lp_flat_sae_open, c.byref(sae), c.byref(named), str(name).encode(), folder, int(bf16), env)
            if model is not None:
                call(lib.lp_sae_fits, sae, lib.lp_flat_config(model._p))
            call(lib.lp_encoder_new, c.byref(encoder), sae, C.LP_EXACT, env)
        except BaseException:
            self._freeing(named, encoder)(sae)
            if model is None:
                self._engine.held.release()
            raise
        self._labels, self._encoder = named, encoder
        self._hold(Held(sae.value, self._freeing(named, encoder), self._engine.held))
        if model is None:
            self._engine.held.release()  # the SAE's from here on
        look = C.lp_flat_sae()
        lib.lp_flat_sae_look(c.byref(look), sae)
        self._look = look
        self.name, self.path, self.kind, self.hash = (x.decode() for x in (look.name, look.path, look.kind, look.hash))
        self.site = lib.lp_site_name(look.site).decode() if look.site != C.LP_N_SITES else None
        self.layer, self.declared_l0 = look.layer, look.declared_l0
        self.d_in, self.d_sae, self.d_out = look.d_in, look.d_sae, look.d_out

    @staticmethod
    def _freeing(named, encoder):
        def free(sae):
            lib.lp_encoder_free(encoder)
            lib.lp_flat_labels_free(named)
            lib.lp_sae_close(sae)
        return free

    def _feature(self, feature):
        self._p
        if not 0 <= feature < self.d_sae:
            raise LapidaryError(f"feature {feature}: {self.name} has features 0 to {self.d_sae - 1}")
        return int(feature)

    def encode(self, x):
        """Activations [n, d_in] or [d_in] -> CSR, copies.  The bits are those `lapidary features` prints."""
        self._p
        x, f = as_rows(x, self.d_in, "x"), C.lp_features()
        try:
            with self._engine.turn():
                call(lib.lp_encode, c.byref(f), self._encoder, x.ctypes.data, len(x))
            return _csr(f)
        finally:
            lib.lp_features_free(c.byref(f))

    def encode_dense(self, x):
        """The pre-activations, below thresholds too: float32 [n, d_sae], a copy."""
        self._p
        x = as_rows(x, self.d_in, "x")
        out = np.empty((len(x), self.d_sae), np.float32)
        with self._engine.turn():
            call(lib.lp_encode_dense, out.ctypes.data, self._encoder, x.ctypes.data, len(x))
        return out

    def decode(self, csr, x=None):
        """A CSR -> reconstructions, float32 [n, d_out], a copy.  x: the rows it was encoded from, which SAEs that normalise
        rows or have a skip matrix need."""
        self._p
        start, index, value = (np.ascontiguousarray(a, t) for a, t in zip(csr, (np.int64, np.int32, np.float32)))
        n = len(start) - 1
        if n < 0 or start[0] != 0 or (np.diff(start) < 0).any() or start[-1] != len(index) or len(index) != len(value):
            raise LapidaryError("not a CSR: indptr must rise from 0 to the number of indices and data")
        if len(index) and not (0 <= index.min() and index.max() < self.d_sae):
            raise LapidaryError(f"{self.name} has features 0 to {self.d_sae - 1}")
        if x is None and self._look.needs_input:
            raise LapidaryError(f"{self.name} needs the rows that were encoded: decode(csr, x)")
        x = as_rows(x, self.d_in, "x") if x is not None else None
        if x is not None and len(x) != n:
            raise LapidaryError(f"{n} rows of features and {len(x)} of x")
        f, out = C.lp_features(n, start.ctypes.data, index.ctypes.data, value.ctypes.data), np.empty((n, self.d_out), np.float32)
        with self._engine.turn():
            lib.lp_decode(out.ctypes.data, self._encoder, c.byref(f), None if x is None else x.ctypes.data)
        return out

    def decoder_row(self, feature):
        """float32 [d_out], a copy."""
        out = np.empty(self.d_out, np.float32)
        lib.lp_sae_decoder_row(self._p, self._feature(feature), out.ctypes.data)
        return out

    def encoder_row(self, feature):
        """float32 [d_in], a copy (the engine holds the encoder in panels)."""
        out = np.empty(self.d_in, np.float32)
        lib.lp_sae_encoder_row(self._p, self._feature(feature), out.ctypes.data)
        return out

    def _view(self, pointer, shape, kind="<f4"):
        self._p
        return np.asarray(View(pointer, shape, self._held, kind=kind)) if pointer else None

    @property
    def W_dec(self):
        """float32 [d_sae, d_out]: a read-only view; of an SAE held as bf16 a copy."""
        shape = (self.d_sae, self.d_out)
        if not self._look.is_bf16:
            return self._view(self._look.decoder, shape)
        return (self._view(self._look.decoder, shape, "<u2").astype(np.uint32) << 16).view(np.float32)

    @property
    def b_enc(self):
        """float32 [d_sae], a read-only view."""
        return self._view(self._look.b_enc, (self.d_sae,))

    @property
    def b_dec(self):
        """float32 [d_out], a read-only view."""
        return self._view(self._look.b_dec, (self.d_out,))

    @property
    def threshold(self):
        """float32 [d_sae], a read-only view; None: the SAE is not a jumprelu."""
        return self._view(self._look.threshold, (self.d_sae,))

    @property
    def labels(self):
        """{feature: what somebody called it}, a copy; features without a name are not in it."""
        self._p
        said = ((i, lib.lp_label_text(self._labels, i)) for i in range(self.d_sae))
        return {i: text.decode() for i, text in said if text is not None}

    def max_act(self, feature):
        """Its largest activation on the labels' corpus; 0: not known."""
        return lib.lp_label_max(self._labels, self._feature(feature))

    def logit_effects(self, feature, gained=False):
        """What the feature adds to every token's logit per unit: float32 [vocab], a copy.  gained: through the final norm's
        gain, as the logit lens; else plain, as dashboards (sae/analyse.h)."""
        if self._model is None:
            raise LapidaryError("logit effects need the model: SAE.open(name, model)")
        m, config, env = self._model._p, self._model.config, c.byref(self._engine.env)
        v, e = np.empty(config["d_model"], np.float32), np.empty(config["vocab"], np.float32)
        with self._engine.turn():
            call(lib.lp_feature_direction, v.ctypes.data, self._p, self._feature(feature), m, env)
            kind = C.LP_EFFECT_GAINED if gained else C.LP_EFFECT_PLAIN
            call(lib.lp_logit_effect, e.ctypes.data, v.ctypes.data, kind, m, env)
        return e

    def features(self, session, ids):
        """Evaluates ids after what the session holds; a CSR with a row for each of them."""
        with session.read(self) as reader:
            session.eval(ids)
            return reader.features()


class _Attached(Object):
    """A C object that hooks a session and explains why it stopped it; the session keeps it until close()."""

    def _attach(self, session, held):
        self._session = session
        self._hold(held, session)
        session._attached.append(self)

    def _may_close(self):
        self._session._idle("what is hooked cannot be closed")

    def close(self):
        with self._session._model._engine.lock:
            super().close()
            if self in self._session._attached:
                self._session._attached.remove(self)

    def _about(self, session, ids, generated):
        """Tokens are about to be evaluated."""

    def _prompt(self, ids):
        """A prompt is about to be."""

    def _came(self, token):
        """A token was drawn, an lp_generated; true: stop."""
        return False


def _pointers(saes):
    return (c.c_void_p * len(saes))(*[s._p for s in saes])


class Reader(_Attached):
    """SAEs that encode what passes their sites; made by Session.read()."""

    def __init__(self, session, saes):
        p, self.saes = c.c_void_p(), tuple(saes)
        if not self.saes:
            raise LapidaryError("which SAEs?  session.read(sae, ...)")
        with session._model._engine.lock:
            session._idle("SAEs cannot be added")
            call(lib.lp_reader_new, c.byref(p), session._p, _pointers(self.saes), len(self.saes), None)
        self._explain = lib.lp_reader_explain
        self._attach(session, Held(p.value, lib.lp_reader_free, session._held, *[s._held for s in self.saes]))

    @property
    def first(self):
        """Position of row 0; -1 before any."""
        return lib.lp_reader_first(self._p)

    def features(self, which=0):
        """CSR of everything that passed the SAE of that place: row i is position first + i.  Copies."""
        if not 0 <= which < len(self.saes):
            raise LapidaryError(f"SAE {which} of {len(self.saes)}")
        return _csr(C.lp_features.from_address(lib.lp_reader_features(self._p, which)))


class Steer(_Attached):
    """A recipe at work; made by Session.steer()."""

    def __init__(self, session, recipe, saes=None, reads_back=False):
        r, p, self._opened, self._reads_back = c.c_void_p(), c.c_void_p(), [], reads_back
        is_text = isinstance(recipe, dict)
        call(lib.lp_flat_recipe_open, c.byref(r), None if is_text else str(recipe).encode(),
             json.dumps(recipe).encode() if is_text else None)
        held = Held(r.value, lib.lp_flat_recipe_free)
        try:
            self.recipe = self._text(r)
            if saes is None:
                named = [x["layer"] for e in self.recipe["features"] for x in (e, e.get("when")) if x]
                self._opened = saes = [SAE.open(name, session._model) for name in dict.fromkeys(named)]
            self.saes = tuple(saes)
            for s in self.saes:
                lib.lp_recipe_fill(r, s.name.encode(), s._labels)
            ids = session.tokens
            with session._model._engine.lock:
                session._idle("steering cannot be added")
                context = self._context(ids)
                call(lib.lp_steer_new, c.byref(p), session._p, r, _pointers(self.saes), len(self.saes), c.byref(context))
            self._explain = lib.lp_steer_explain
            self._attach(session, Held(p.value, lib.lp_steer_free, session._held, held, *[s._held for s in self.saes]))
        except BaseException:
            for s in self._opened:
                s.close()
            raise
        finally:
            held.release()

    @staticmethod
    def _text(r):
        text = c.c_void_p()
        call(lib.lp_recipe_text, c.byref(text), r)
        try:
            return json.loads(c.string_at(text))
        finally:
            lib.lp_flat_free(text)

    def _context(self, ids):
        return C.lp_steer_context(n_prompt=len(ids), ids=ids.ctypes.data if len(ids) else None, reads_back=int(self._reads_back))

    def close(self):
        super().close()
        for s in self._opened:
            s.close()

    def _prompt(self, ids):
        call(lib.lp_steer_prompt, self._p, c.byref(self._context(ids)))

    def _about(self, session, ids, generated):
        if not generated:
            return self._prompt(np.concatenate([session.tokens, ids]))
        for i, token in enumerate(ids):
            call(lib.lp_steer_token, self._p, session.pos + i, int(token))

    def _came(self, token):
        return lib.lp_steer_generated(token, self._p)

    def readback(self):
        """What each edit asked and achieved, by position: a structured array (core names: pos, edit, asked, before,
        achieved, status), a copy; empty unless steer(..., reads_back=True)."""
        return self._list(lib.lp_steer_readback, C.lp_steer_reading)

    def moves(self):
        """How far each row was moved: a structured array of pos, site, layer, relative = |x' - x| / |x|; a copy."""
        return self._list(lib.lp_steer_moves, C.lp_steer_move)

    def _list(self, f, struct):
        out, n = c.c_void_p(), c.c_size_t()
        call(f, c.byref(out), c.byref(n), self._p)
        try:
            return _copy(out, n.value, np.dtype(struct))
        finally:
            lib.lp_flat_free(out)
