"""How a fitted model is looked at; the pictures themselves are on the page of that name."""
from __future__ import annotations

from sklearn.utils.validation import check_is_fitted


class Drawn:
    "What a fitted model looks like"
    def plot(
        self,
        X=None,             # (n, f), what it was fitted to: draws 95 % intervals, too; None: none
        *,
        noise=None,         # of `X`, as in `al.uncertainty`; None: that of the loss
        mask=None,          # (n, f), True = observed
        weights=None,       # (n, f), how much an entry counts
        features=None,      # f names; default those that the model was fitted with
        titles=None,        # k texts
        image_shape=None,   # (rows, columns), where the features are pixels
        kind="auto",        # "mutations", "words", "images", "spectra", "bars"; "auto": by the names
    ):                      # a figure of matplotlib
        """
        The components in the form that their field reads, a page of its own: `al.plot_components`

        Raises
        ------
        ValueError
            Names, titles or a shape that do not fit; data that do not determine the components,
            so that there are no intervals.

        Examples
        --------
        >>> import numpy as np, anmf_lab as al
        >>> X = np.random.default_rng(0).poisson(9., size=(20, 6)).astype(float)
        >>> model = al.NMF(1, loss="kullback-leibler", random_state=0).fit(X)
        >>> fig = model.plot(X, features=["Na", "Ca", "Fe", "Zn", "OC", "EC"])   # with intervals
        >>> fig.axes[0].get_title(loc="left")
        'component 1'
        """
        from .pictures import plot_components
        check_is_fitted(self)
        how = dict(features=features, titles=titles, image_shape=image_shape, kind=kind)
        if X is None: return plot_components(self, **how)   # type: ignore[arg-type]
        from .error_bars import uncertainty
        counts = getattr(self.objective(X), "beta", None) == 1
        if noise is None: noise = "poisson" if counts else "gaussian"
        bars = uncertainty(self, X, noise, mask=mask, weights=weights)
        bars.interval()   # refused where there are none
        return plot_components(bars, **how)   # type: ignore[arg-type]
