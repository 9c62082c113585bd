"""Figures drawn from arrays: no computing, no files, and so no page."""
from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure


def draw_parts(parts: np.ndarray) -> Figure:
    "49 components as pictures"
    fig = Figure(figsize=(4, 4), layout="constrained")
    for ax, p in zip(fig.subplots(7, 7).flat, parts, strict=True):
        ax.imshow(p.reshape(19, 19), cmap="gray_r")
        ax.set_axis_off()
    return fig


def draw_restoration(rows: dict, shown: list[int]) -> Figure:
    "Panels (a) to (f) for some of the faces"
    fig = Figure(figsize=(4.6, 5.2), layout="constrained")
    for line, (name, A) in zip(fig.subplots(len(rows), len(shown)), rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        for ax, i in zip(line, shown, strict=True):
            ax.imshow(A[i].reshape(19, 19), cmap="gray", vmin=min(0, A[i].min()), vmax=1)
            ax.set(xticks=[], yticks=[])
    return fig


SHOWN = {
    "clean": "clean", "salt_pepper": "salt & pepper", "pixel": "pixels",
    "regular_patch": "rectangles", "irregular_patch": "blobs", "orl": "ORL", "yale": "Yale",
}
ROWS = {   # of Figure 1 of the ANMF paper: label -> field of the sets
    "face": "clean", "damaged": "seen", "target": "Z",
    "components": "H", "attacked": "H_adv", "attacked,\n$\\gamma=0$": "H_free",
}


def draw_faces(
    sets: list[dict],    # clean, seen, Z (n, f), labels (n,), H, H_adv, H_free (k, f), image_shape, about
    columns: int = 4,    # components of each
) -> Figure:
    "Faces, damaged, target, components, attacked components, and these without an attacker"
    fig = Figure(figsize=(.85 * columns * len(sets) + .9, 5.2), layout="constrained")
    widths = [columns + 1.1] + [columns] * (len(sets) - 1)
    blocks = fig.subfigures(1, len(sets), width_ratios=widths, squeeze=False)[0]
    for s, block in zip(sets, blocks, strict=True):
        block.suptitle(SHOWN[s["about"]["damage"]], fontsize=9)
        at = [int(np.flatnonzero(s["labels"] == j)[0]) for j in range(columns)]
        for (label, what), axes in zip(ROWS.items(), block.subplots(len(ROWS), columns), strict=True):
            samples = len(s[what]) == len(s["clean"])
            for j, ax in enumerate(axes):
                picture = s[what][at[j] if samples else j].reshape(s["image_shape"])
                ax.imshow(picture, cmap="gray", vmin=0, vmax=picture.max())
                ax.set(xticks=[], yticks=[])
            if s is sets[0]:
                axes[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return fig


def draw_maps(
    about: list[dict],       # name and damage of each
    maps: list[np.ndarray],  # (2k, 2): components, then attacked components
) -> Figure:
    "Maps of components and attacked components, each pair joined by a line"
    fig = Figure(figsize=(3.6 * len(maps), 3.3), layout="constrained")
    for who, at, ax in zip(about, maps, fig.subplots(1, len(maps), squeeze=False)[0], strict=True):
        k = len(at) // 2
        for a, b in zip(at[:k], at[k:], strict=True):
            ax.plot(*zip(a, b, strict=True), color=".7", lw=.7, zorder=0)
        ax.plot(*at[:k].T, "o", ms=4, label="components")
        ax.plot(*at[k:].T, "^", ms=4, color="C3", label="attacked")
        ax.set(xticks=[], yticks=[])
        ax.set_title(", ".join(SHOWN.get(who[what], who[what]) for what in ("name", "damage")), fontsize=9)
        if at is maps[0]: ax.legend(fontsize=7)
    return fig


def draw_convergence(
    curves: dict,   # {target: {solver: {iterations, objective, residual}}}, about
) -> Figure:
    "Objective (9) and residual over the iterations"
    targets = [t for t in curves if t != "about"]
    fig = Figure(figsize=(3.6 * len(targets), 4.4), layout="constrained")
    axes = fig.subplots(2, len(targets), sharex=True, sharey="row", squeeze=False)
    for col, t in zip(axes.T, targets, strict=True):
        for ax, what, unit in zip(col, ("objective", "residual"), (" (9)", " of (9)"), strict=True):
            for j, (label, c) in enumerate(curves[t].items()):
                color = ("C3", "C1", "C0")[j % 3]
                ax.semilogy(c["iterations"], c[what], color=color, lw=1.2, label=label)
            ax.set_ylabel(what + unit, fontsize=8)
            ax.tick_params(labelsize=7)
        col[0].set_title(t, fontsize=9)
        col[1].set_xlabel("iteration", fontsize=8)
    axes[0, -1].legend(fontsize=7)
    return fig


def draw_components(values: np.ndarray, low: np.ndarray, high: np.ndarray, labels: list[str]):
    "A row of bars for each component, (k, f), with a line from `low` to `high` on every bar"
    import matplotlib.pyplot as plt
    k, f = values.shape
    fig, axes = plt.subplots(k, 1, figsize=(7, 1.1 * k + .5), sharex=True, squeeze=False)
    for j, ax in enumerate(axes[:, 0]):
        ax.bar(np.arange(f), values[j], color="#9fc3c7", width=.8)
        ax.vlines(np.arange(f), low[j], high[j], color="#22303c", lw=1)
        ax.set_ylabel(labels[j], rotation=0, ha="right", va="center")
        ax.spines[["top", "right"]].set_visible(False)
    return fig


def draw_bound(table) -> Figure:
    "A certificate: `feature_error` that nobody exceeds, against `eps`"
    import matplotlib.pyplot as plt
    fig, ax = plt.subplots(figsize=(5, 3))
    ax.fill_between(table.eps, table.feature_error, color="#9fc3c7", label="nobody leaves this")
    ax.set(xlabel="perturbation, relative to the data", ylabel="feature error", xlim=(0, table.eps.max()))
    return fig
