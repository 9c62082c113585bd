"""`components_stderr_` of a model, where a fit asks for it; see the page of `error_bars`"""
from __future__ import annotations

import warnings

from .core import check_choice


def begin_stderr(model, stderr) -> None:
    "Forget those of an earlier fit; refuse an unknown noise model before anything is fitted"
    vars(model).pop("components_stderr_", None)
    if stderr is None: return
    from .error_bars import NOISES     # a later page: this is the only door, and only if asked
    if isinstance(stderr, (str, bool)) or not hasattr(stderr, "__len__"):
        check_choice(stderr, "stderr", NOISES)


def stderr_of(model, X, noise, mask=None, weights=None):
    "Standard errors of `components_`, (k, f), in their scale; NaN where not determined"
    from .error_bars import uncertainty
    u = uncertainty(model, X, noise, mask=mask, weights=weights)
    name = type(model).__name__
    if u.light == "red":
        warnings.warn(f"{name}: these data do not determine the components, so components_stderr_ "
                      "is NaN. al.bands(model, X) says how far they may go at the same fit.", stacklevel=4)
    elif u.light == "amber":
        warnings.warn(f"{name}: the curvature is small; check components_stderr_ by refits, "
                      "al.stability(...).", stacklevel=4)
    return u.components_stderr * model.components_.sum(1)[:, None]
