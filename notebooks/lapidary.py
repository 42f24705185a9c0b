"""lapidary - the engine from Python: models, sessions with live hooks, sparse autoencoders, steering.  ctypes and numpy only.

    >>> import lapidary
    >>> model = lapidary.Model("base")
    >>> sae = lapidary.SAE.open("3-lapidary-res-2k", model)
    >>> session = model.session()
    >>> print(session.generate("Once upon a time", max_tokens=14).text)
     there was a little girl called Grace. She had a golden lamp and
    >>> def toward_the_sea(act):                  # act.x is the engine's own memory: [rows, heads, width]
    ...     act.x[:] += 10 * sae.decoder_row(449)
    >>> with session.hook("resid_post", 3, toward_the_sea, edits=True):
    ...     print(session.generate("Once upon a time", max_tokens=14).text)
     there was a little boy called Leo. He had a black boat and

Where the library is: $LAPIDARY_LIBRARY, else build/ beside this folder, else the installation's (lapidary_c.py).

Ownership.  A Model, Session, SAE, Reader, Steer is closed by close(), by `with`, or when nobody refers to it, in any order:
the memory of one goes when it is closed and nothing that needs it is left.  Closing a model closes its sessions.  A numpy
array that is called a view below lies in the engine's memory and keeps that memory, even after close(); what is called a
copy is numpy's own.  Using an object after close() raises LapidaryError, as does everything the engine refuses.

Threads.  Calls release the GIL.  Everything of one model runs on one pool of threads, one call at a time: a second Python
thread waits.  Ctrl-C stops an evaluation at the next layer, once a hook or the end of a
wave has let Python see it.
"""
from lapidary_own import LapidaryError
from lapidary_saes import SAE, Reader, Steer
from lapidary_session import Act, Cache, Generation, Model, Session, Tap, Token

__all__ = ["Act", "Cache", "Generation", "LapidaryError", "Model", "Reader", "SAE", "Session", "Steer", "Tap", "Token"]
