"""anmf-lab: the laboratory for adversarial nonnegative matrix factorization."""
__version__ = "0.1.0"

from importlib import import_module

# What `import anmf_lab as al` offers, and the module each name lives in. Modules are loaded on first use.
_WHERE = {
    "ANMF": "anmf_model",
    "ATNMF": "atnmf",
    "Audit": "auditing",
    "CappedNMF": "robust",
    "CauchyNMF": "robust",
    "CorrentropyNMF": "robust",
    "HuberNMF": "robust",
    "L21NMF": "robust",
    "LaFA": "lafa",
    "NMF": "nmf",
    "NegativeBinomial": "objective",
    "ONMF": "onmf",
    "Objective": "objective",
    "SpeckledSearchCV": "selection",
    "ari": "metrics",
    "audit": "auditing",
    "bands": "feasible",
    "blocks": "distributed",
    "certify": "certificate",
    "clustering_accuracy": "metrics",
    "corrupt": "noise",
    "factorize": "solve",
    "false_zeros": "synthetic",
    "feature_error": "align",
    "identifiability": "determined",
    "leave_one_out": "resampling",
    "list_datasets": "data",
    "load_dataset": "data",
    "masked_rmse": "metrics",
    "nmi": "metrics",
    "plot_components": "pictures",
    "rank_table": "ranks",
    "read_table": "tables",
    "rivals": "rival_minima",
    "shard": "distributed",
    "stability": "resampling",
    "three_stages": "noise",
    "uncertainty": "error_bars",
}
__all__ = sorted(_WHERE)


def __getattr__(name):
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_WHERE])
