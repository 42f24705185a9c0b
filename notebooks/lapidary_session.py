"""lapidary_session - Model and Session of lapidary.py, and what a session can be watched with."""
import ctypes as c
import weakref
from collections import namedtuple

import numpy as np

import lapidary_c as C
from lapidary_c import lib
from lapidary_own import Engine, Held, LapidaryError, Object, View, as_ids, as_rows, call, find_site, tensor_name

# ---- models ----------------------------------------------------------------------------------------------------------


class Model(Object):
    """A Gemma 2: a folder, a .gguf, a Hub id in the cache, or an embedded one: base, chat, draft, shield.

    threads: 0, one per CPU.  No result depends on it."""

    def __init__(self, name="base", threads=0):
        path, p = c.c_void_p(), c.c_void_p()
        self._engine = Engine(threads)
        call(lib.lp_model_name, c.byref(path), str(name).encode(), None)
        try:
            with self._engine.turn():
                call(lib.lp_model_open, c.byref(p), c.string_at(path), None, c.byref(self._engine.env))
        finally:
            lib.lp_flat_free(path)
            pool = self._engine.held  # the model's from here on
            if not p.value:
                pool.release()
        self._hold(Held(p.value, lib.lp_model_close, pool))
        pool.release()

    def close(self):
        with self._engine.lock:
            super().close()

    @property
    def config(self):
        """The numbers of the model as a dict (core/config.h): n_layers, d_model, vocab, ..., sliding [n_layers]."""
        raw = C.lp_config.from_address(lib.lp_flat_config(self._p))
        told = {name: getattr(raw, name) for name, _ in raw._fields_}
        return {**told, "sliding": list(raw.sliding[:raw.n_layers])}

    @property
    def path(self):
        return lib.lp_flat_model_path(self._p).decode()

    def _tokenizer(self):
        t = lib.lp_flat_tokenizer(self._p)
        if not t:
            raise LapidaryError(f"{self.path} has no tokenizer; give token ids")
        return t

    def encode(self, text, bos=True, specials="literal"):
        """Text to ids, int32 [n], a copy.  bos: <bos> in front, unless the text brought its own.  specials: what
        "<start_of_turn>" in it is: "literal" text, "spm" as SentencePiece has it, or a token, "parsed"."""
        rules = {"literal": C.LP_SPECIALS_LITERAL, "spm": C.LP_SPECIALS_SENTENCEPIECE, "parsed": C.LP_SPECIALS_PARSED}
        if specials not in rules:
            raise LapidaryError(f'specials "{specials}": literal, spm or parsed')
        t, raw, out = self._tokenizer(), text.encode(errors="surrogateescape"), C.lp_tokens()
        try:
            call(lib.lp_tokenizer_encode, t, raw, len(raw), rules[specials], c.byref(out))
            ids = np.array((c.c_int * out.n).from_address(out.ids), np.int32) if out.n else np.empty(0, np.int32)
        finally:
            lib.lp_tokens_free(c.byref(out))
        first = lib.lp_tokenizer_bos(t)
        return ids if not bos or first < 0 or (len(ids) and ids[0] == first) else np.insert(ids, 0, first)

    def decode(self, ids, specials=False):
        """Ids to text; specials: show special tokens as their pieces, else leave them out."""
        ids, text, n = as_ids(ids), c.c_void_p(), c.c_size_t()
        if len(ids) and not (0 <= ids.min() and ids.max() < self.config["vocab"]):
            raise LapidaryError(f"ids of this vocabulary go from 0 to {self.config['vocab'] - 1}")
        call(lib.lp_tokenizer_decode, self._tokenizer(), ids.ctypes.data, len(ids), int(specials), c.byref(text), c.byref(n))
        try:
            return c.string_at(text, n.value).decode()
        finally:
            lib.lp_flat_free(text)

    def session(self, n_ctx=0, wave=0, fast=False, bf16_embed_scale=False):
        """A new timeline.  n_ctx: positions, 0 the model's maximum; wave: rows at a time (changes no bit); fast: bf16
        arithmetic instead of exact; bf16_embed_scale: sqrt(d_model) rounded as bf16 reference runs do."""
        o = C.lp_session_options(C.LP_FAST if fast else C.LP_EXACT, wave, n_ctx, int(bf16_embed_scale))
        p = c.c_void_p()
        call(lib.lp_session_new, c.byref(p), self._p, c.byref(o), c.byref(self._engine.env))
        return Session(self, p.value)


# ---- sessions --------------------------------------------------------------------------------------------------------

Generation = namedtuple("Generation", "text ids logprobs finish")
Generation.__doc__ = """text; ids int32 [n], the stop token included; logprobs float32 [n], NaN where not asked; finish: why."""
Token = namedtuple("Token", "index pos id text logprob")
Token.__doc__ = """One token as it comes.  text: what became certain with it, often but not always its own."""


class Act:
    """What a hook is shown.  x: float32 [rows, heads, width], a view of the engine's memory, writable when the hook was
    added with edits=True; it is reused when the hook returns: copy what you keep.  Row i is position pos + i.  heads is
    1 unless the site is per head.  site, layer: where; layer is -1 for the sites of the whole model."""

    __slots__ = ("site", "layer", "pos", "rows", "x")


class _Hooked:
    """Something added to a session, there until remove(), the end of its `with`, or the session's close()."""

    def __init__(self, session, hook):
        self._session, self._hook = weakref.ref(session), hook  # hook: C calls what it refers to
        with session._model._engine.lock:
            session._idle("hooks cannot be changed")
            self._handle = call(lib.lp_session_hook, session._p, hook)
            session._hooked[self._handle] = self

    def remove(self):
        session = self._session()
        if session is not None and session._hooked.get(self._handle) is self:
            with session._model._engine.lock:
                session._idle("hooks cannot be changed")
                lib.lp_session_unhook(session._p, self._handle)
            del session._hooked[self._handle]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


class Tap(_Hooked):
    """A recording of a site.  x: float32 [n_pos, width] or [n_pos, heads, width], numpy's own memory, which the engine
    fills as positions pass; the first row is position first_pos."""

    def __init__(self, session, site, layer, first_pos, n_pos):
        heads, width = c.c_int(), c.c_int()
        lib.lp_site_shape(lib.lp_flat_config(session._model._p), site, first_pos + n_pos, c.byref(heads), c.byref(width))
        self.x = np.zeros([n_pos, heads.value, width.value] if heads.value else [n_pos, width.value], np.float32)
        if site == C.LP_SCORES:
            self.x[:] = -np.inf  # keys still to come
        grows = site in (C.LP_SCORES, C.LP_PATTERN)
        self._tape = C.lp_tape(self.x.ctypes.data, 1, first_pos, n_pos, max(heads.value, 1) * width.value,
                               heads.value if grows else 0)
        super().__init__(session, lib.lp_tap(site, layer, c.addressof(self._tape)))


class Cache(dict):
    """Recorded activations by the names TransformerLens gives them: cache["blocks.3.hook_resid_post"], also
    cache["resid_post", 3].  float32 [n, width] or [n, heads, width], copies."""

    def __missing__(self, key):
        name = tensor_name(*(find_site(*key) if isinstance(key, tuple) else find_site(key)))
        if name not in self:
            raise KeyError(key)
        return self[name]


class Session(Object):
    """One timeline of tokens over a model; made by Model.session() and fork()."""

    def __init__(self, model, pointer):
        self._model, self._hooked, self._attached = model, {}, []
        self._raised, self._busy = None, False
        self._hold(Held(pointer, lib.lp_session_free, model._held), model)

    def _idle(self, what="it cannot be called"):
        if self._busy:
            raise LapidaryError(f"in the middle of an evaluation {what} from a hook of the same session")

    def _may_close(self):
        self._idle("it cannot be closed")

    def close(self):
        with self._model._engine.lock:
            super().close()
            self._hooked.clear()
            self._attached.clear()

    def _run(self, f, *args, stops=False):
        """One evaluating call.  What a hook raised is raised again here."""
        with self._model._engine.turn():
            self._idle()
            err, self._raised, self._busy = C.lp_error(), None, True
            try:
                status = f(self._p, *args, c.byref(err))
            finally:
                self._busy = False
            for a in self._attached:
                status = a._explain(a._p, status, c.byref(err))
            raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        if status < 0 or (status > 0 and not stops):
            raise LapidaryError(err.text.decode(errors="replace") or "stopped", status)
        return status

    def _tell(self, ids, generated):
        for a in self._attached:
            a._about(self, ids, generated)

    def eval(self, ids, generated=False):
        """Runs tokens at the positions that follow; all are committed or, when it raises, none.  Hooks fire as they pass.
        generated: the tokens were drawn, not given, for steering that treats the two apart."""
        ids = as_ids(ids)
        self._p, self._tell(ids, generated)
        self._run(lib.lp_session_eval, ids.ctypes.data, len(ids))

    def peek(self, ids, last_layer):
        """The same through layer last_layer only, and nothing is committed: hooks see half a model at half the price."""
        ids = as_ids(ids)
        self._p, self._tell(ids, False)
        self._run(lib.lp_session_peek, ids.ctypes.data, len(ids), last_layer)

    @property
    def logits(self):
        """float32 [vocab] after the last token: a read-only view.  Evaluating further overwrites it, at the second call
        if not at the next: copy what you keep."""
        p = lib.lp_session_logits(self._p)
        if not p:
            raise LapidaryError("no logits: nothing was evaluated yet, or it was rewound; evaluate a token")
        return np.asarray(View(p, (self._model.config["vocab"],), self._held))

    @property
    def pos(self):
        """Tokens committed."""
        return lib.lp_session_pos(self._p)

    @property
    def tokens(self):
        """int32 [pos], a copy."""
        n = self.pos
        return np.array((c.c_int * n).from_address(lib.lp_session_tokens(self._p)), np.int32) if n else np.empty(0, np.int32)

    @property
    def edited_from(self):
        """First position computed under a hook that edits, or -1."""
        return lib.lp_session_edited_from(self._p)

    @property
    def kernels(self):
        return lib.lp_session_kernels(self._p).decode()

    def rewind(self, pos=0):
        """Forgets everything from position pos on."""
        with self._model._engine.lock:
            call(lib.lp_session_rewind, self._p, pos)

    def fork(self, pos=None):
        """A second timeline that shares the first pos positions (None: all), without hooks."""
        p = c.c_void_p()
        with self._model._engine.lock:
            call(lib.lp_session_fork, c.byref(p), self._p, self.pos if pos is None else pos)
        return Session(self._model, p.value)

    def unembed(self, x):
        """The logit lens: residual rows [n, d_model] before the final norm -> logits [n, vocab], a copy."""
        x = as_rows(x, self._model.config["d_model"], "x")
        out = np.empty((len(x), self._model.config["vocab"]), np.float32)
        self._run(lib.lp_session_unembed, x.ctypes.data, len(x), out.ctypes.data)
        return out

    # ---- watching

    def hook(self, site, layer=None, fn=None, edits=False):
        """Calls fn(act) whenever the site is computed, for prompt and generated tokens alike (see Act).

        site: any spelling ("resid_post", "blocks.3.hook_resid_post"); layer: None means every layer, or what the name
        says.  fn may look; with edits=True it may write act.x, or return an array that replaces it.  What it raises
        stops the evaluation, which commits nothing, and is raised from eval().  Returns a handle with remove(), which
        `with` calls; a handle that is dropped leaves the hook in place."""
        if not callable(fn):
            raise LapidaryError("a hook needs a function: session.hook(site, layer, fn)")
        me = weakref.ref(self)

        def shown(pointer, _):
            view = None
            try:
                a, act = C.lp_act.from_address(pointer), Act()
                act.site, act.layer, act.pos, act.rows = lib.lp_site_name(a.site).decode(), a.layer, a.pos, a.rows
                act.x = view = np.asarray(View(a.x, (a.rows, a.heads, a.width), me()._held, edits))
                result = fn(act)
                if result is not None and not edits:
                    raise LapidaryError("a hook added with edits=False returned something; only editing hooks replace")
                if result is not None:
                    view[...] = result
                return 0
            except BaseException as e:  # through C it cannot travel
                me()._raised = e
                return 1
            finally:
                if view is not None:
                    view.flags.writeable = False

        site, layer = find_site(site, layer)
        return _Hooked(self, C.lp_hook(site, layer, edits, C.HOOK(shown), None))

    def tap(self, site, layer=None, n_pos=None):
        """Records a site of one layer from the next position on, n_pos positions (None: the model's maximum, of which only
        what passes takes memory).  Returns a Tap."""
        site, layer = find_site(site, layer)
        if layer == C.LP_EVERY_LAYER:
            raise LapidaryError("a tap records one layer: say which")
        first = self.pos
        return Tap(self, site, layer, first, self._model.config["max_positions"] - first if n_pos is None else n_pos)

    def run_with_cache(self, ids, sites):
        """Evaluates ids after what the session holds and returns a Cache of the sites, any spelling; a site that names no
        layer means all of them.  Row i is the i-th of ids; scores and pattern have a key for every position so far."""
        ids, taps, layers = as_ids(ids), {}, range(self._model.config["n_layers"])
        first = self.pos
        try:
            for site, layer in map(find_site, [sites] if isinstance(sites, str) else sites):
                for one in layers if layer == C.LP_EVERY_LAYER else [layer]:
                    if tensor_name(site, one) not in taps:
                        taps[tensor_name(site, one)] = Tap(self, site, one, first, len(ids))
            self.eval(ids)
        finally:
            for tap in taps.values():
                tap.remove()
        return Cache({name: tap.x for name, tap in taps.items()})

    # ---- generating

    def generate(self, prompt=None, max_tokens=256, *, temperature=0.0, top_k=0, top_p=0.0, min_p=0.0, repetition=0.0,
                 presence=0.0, frequency=0.0, penalty_window=0, bias=None, order="hf", seed=0, stop=(), stop_ids=(),
                 ignore_eos=False, show_specials=False, logprobs=False, on_token=None):
        """Goes on from the prompt: text, ids, or None for what the session holds.  Greedy unless told otherwise; the numbers
        mean what core/sample.h says (bias: {id: added}, order: "hf" or "llama.cpp"), and the same seed gives the same text
        everywhere.  max_tokens 0: until it stops.  on_token(Token) sees each token; a true result stops.  Returns a
        Generation.

        The prompt is compared with what the session holds and only the rest is evaluated, unless anything is hooked: then
        all of it is.  Afterwards the session holds every token drawn but the last, which is not evaluated."""
        if prompt is not None:
            ids = self._model.encode(prompt) if isinstance(prompt, str) else as_ids(prompt)
            if self._hooked or self._attached:
                self.rewind(0)
            for a in self._attached:
                a._prompt(ids)
            self._run(lib.lp_generate_prompt, ids.ctypes.data, len(ids))
        if order not in ("hf", "llama.cpp"):
            raise LapidaryError(f'order "{order}": hf or llama.cpp')
        biases = [C.lp_bias(i, x) for i, x in (bias or {}).items()]
        biases = (C.lp_bias * len(biases))(*biases)
        sample = C.lp_sample_options(temperature, top_k, top_p, min_p, repetition, presence, frequency, penalty_window,
                                     c.addressof(biases), len(biases), C.LP_ORDER_HF if order == "hf" else C.LP_ORDER_LLAMA, seed)
        stop = [stop] if isinstance(stop, str) else list(stop)
        strings, more = (c.c_char_p * len(stop))(*[s.encode() for s in stop]), as_ids(stop_ids)

        def came(pointer, _):
            try:
                t = C.lp_generated.from_address(pointer)
                if any(a._came(pointer) for a in self._attached):
                    return 1
                text = c.string_at(t.text, t.len).decode(errors="replace") if t.text else ""
                return int(bool(on_token and on_token(Token(t.index, t.pos, t.id, text, t.logprob))))
            except BaseException as e:
                self._raised = e
                return 1

        callback = C.GENERATED(came)
        o = C.lp_generate_options(max_tokens, c.addressof(strings), len(stop), more.ctypes.data, len(more), int(ignore_eos),
                                  int(show_specials), int(logprobs), 0, callback, None)
        sampler, out = c.c_void_p(), C.lp_generation()
        call(lib.lp_sampler_new, c.byref(sampler), self._model.config["vocab"], c.byref(sample))
        try:
            self._run(lambda s, err: lib.lp_generate(c.byref(out), s, sampler, c.byref(o), err), stops=on_token is not None)
            n = out.n
            drawn = np.array((c.c_int * n).from_address(out.ids), np.int32) if n else np.empty(0, np.int32)
            scores = np.array((c.c_float * n).from_address(out.logprobs), np.float32) if n else np.empty(0, np.float32)
            text = c.string_at(out.text, out.len).decode(errors="replace") if out.text else ""
            return Generation(text, drawn, scores, lib.lp_finish_name(out.finish).decode())
        finally:
            lib.lp_generation_free(c.byref(out))
            lib.lp_sampler_free(sampler)

    def read(self, *saes):
        """Encodes what passes the SAEs' sites from here on, until close().  Returns a Reader."""
        from lapidary_saes import Reader  # which is built on sessions
        return Reader(self, saes)

    def steer(self, recipe, saes=None, reads_back=False):
        """Puts a recipe to work until close(): a dict as sae/recipe.h has it, a path, or a shipped name ("sea").  saes: the
        SAEs it names; None: they are opened.  Tokens given to eval() or as a prompt are the prompt, what generate() draws
        is generated.  Returns a Steer."""
        from lapidary_saes import Steer
        return Steer(self, recipe, saes, reads_back)
