"""lapidary_own - under lapidary.py: errors, who owns what and for how long, whose turn it is, arguments as C takes them."""
import ctypes as c
import signal
import threading
import weakref
from contextlib import contextmanager

import numpy as np

import lapidary_c as C
from lapidary_c import lib

_lock = threading.RLock()  # of every Held's count


class LapidaryError(Exception):
    """What the engine refuses, in its words.  `status`: the lp_status of core/base.h, 0 where Python refuses."""

    def __init__(self, text, status=0):
        super().__init__(text)
        self.status = status


def call(f, *args):
    """f(*args, &err); a status below zero is raised, anything else returned."""
    err = C.lp_error()
    status = f(*args, c.byref(err))
    if status < 0:
        raise LapidaryError(err.text.decode(errors="replace"), status)
    return status


# ---- who needs what --------------------------------------------------------------------------------------------------


class Held:
    """A C object, freed when its last user lets go: the Python object, views of it, and what was made from it.

    Counted by hand and not left to the collector, which may finalize a cycle in any order."""

    def __init__(self, pointer, free, *needs):
        self.pointer, self.free, self.needs, self.users = pointer, free, needs, 1
        for n in needs:
            n.keep()

    def keep(self):
        with _lock:
            self.users += 1

    def release(self):
        with _lock:
            self.users -= 1
            if self.users:
                return
        self.free(self.pointer)
        for n in self.needs:
            n.release()


class View:
    """Memory of a Held as numpy takes it; lives as long as an array of it does."""

    def __init__(self, pointer, shape, held, writes=False, kind="<f4"):
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": kind, "data": (pointer, not writes)}
        held.keep()
        weakref.finalize(self, held.release)


class Object:
    """What the public classes share: a pointer that is there until close()."""

    def _hold(self, held, parent=None):
        self._held, self._children = held, weakref.WeakSet()
        self._finalizer = weakref.finalize(self, held.release)
        if parent is not None:
            parent._children.add(self)

    @property
    def _p(self):
        if not getattr(self, "_finalizer", None) or not self._finalizer.alive:
            raise LapidaryError(f"this {type(self).__name__} is closed")
        return self._held.pointer

    def _may_close(self):
        """Raises where closing it, or what was made from it, would pull the floor from under a call."""
        for child in list(self._children):
            child._may_close()

    def close(self):
        """Frees it as soon as no view needs it; more than once is fine.  All of it is closed or, when it raises, nothing."""
        if getattr(self, "_finalizer", None) and self._finalizer.alive:
            self._may_close()
            for child in list(self._children):
                child.close()
            self._finalizer()

    def __enter__(self):
        self._p
        return self

    def __exit__(self, *_):
        self.close()


class Engine:
    """A pool of threads, the env that calls are given, and whose turn it is."""

    def __init__(self, threads):
        pool = c.c_void_p()
        call(lib.lp_pool_new, c.byref(pool), threads)
        self.held, self.lock, self.cancel = Held(pool.value, lib.lp_pool_free), threading.RLock(), c.c_bool(False)
        self._progress = C.PROGRESS(lambda *_: None)  # lets Python see a signal
        self.env = C.lp_env(pool=pool.value, cancel=c.addressof(self.cancel), progress=self._progress)

    @contextmanager
    def turn(self):
        """This thread's turn on the pool; Ctrl-C meanwhile cancels, and is raised when C has returned."""
        with self.lock:
            told = []

            def interrupted(number, frame):
                told.append(number)
                self.cancel.value = True

            is_main = threading.current_thread() is threading.main_thread()
            old = signal.getsignal(signal.SIGINT) if is_main else None
            takes = old is signal.default_int_handler
            if takes:
                signal.signal(signal.SIGINT, interrupted)
            try:
                yield
            finally:
                if takes:
                    signal.signal(signal.SIGINT, old)
                if told:
                    self.cancel.value = False
                    raise KeyboardInterrupt


def as_rows(x, width, what):
    """x as C reads it: contiguous float32 [n, width]; [width] becomes one row.  Copied only where it is not so already."""
    x = np.ascontiguousarray(x, np.float32)
    if x.ndim not in (1, 2) or x.shape[-1] != width:
        raise LapidaryError(f"{what}: shape {x.shape}, expected [n, {width}]")
    return x.reshape(-1, width)


def as_ids(ids):
    """Token ids as C reads them: contiguous int32 [n].  Nothing is rounded or wrapped to make it one."""
    raw = np.asarray(ids)
    if raw.size and raw.dtype.kind not in "iu":
        raise LapidaryError(f"token ids are whole numbers, not {raw.dtype}; encode text with model.encode")
    if raw.size and not (-2**31 <= int(raw.min()) and int(raw.max()) < 2**31):
        raise LapidaryError("token ids beyond 32 bits")
    return np.ascontiguousarray(raw, np.int32).reshape(-1)


def find_site(name, layer=None):
    """(site, layer) of any spelling; layer None: what the name says, else every layer."""
    site, named = c.c_int(), c.c_int()
    call(lib.lp_site_parse, name.encode(), c.byref(site), c.byref(named))
    if layer is None or not lib.lp_site_has_layer(site):
        if layer is not None:
            raise LapidaryError(f"{name} has no layers; leave the layer out")
        return site.value, named.value
    if named.value not in (C.LP_EVERY_LAYER, layer):
        raise LapidaryError(f"{name} is not of layer {layer}")
    return site.value, int(layer)


def tensor_name(site, layer):
    return lib.lp_site_tensor_name(c.create_string_buffer(96), 96, site, layer).decode()
