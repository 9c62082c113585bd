"""The robust papers' updates, literally and in their letters: samples are columns, D is an n x n matrix. Slow; for comparison only."""
import numpy as np


# --- Ding, Li, Peng & Park 2006: X (p x n) ~ F G', F (p x k), G (n x k), G'G = I

def onmf_G(X, F, G):
    "G_jk <- G_jk sqrt( (X'F)_jk / (G G' X' F)_jk )"
    return G * np.sqrt((X.T @ F) / (G @ G.T @ X.T @ F))


def onmf_F(X, F, G):
    "F_ik <- F_ik (X G)_ik / (F G' G)_ik"
    return F * (X @ G) / (F @ G.T @ G)


# --- Kong, Ding & Huang 2011: min sum_i ||x_i - F g_i||, X (p x n) ~ F G, F (p x k), G (k x n)

def l21_D(X, F, G):
    "D_ii = 1 / ||x_i - F g_i||"
    return np.diag([1 / np.sqrt(np.sum((X[:, i] - F @ G[:, i]) ** 2)) for i in range(X.shape[1])])


def l21_G(X, F, G):
    "G_ki <- G_ki (F' X D)_ki / (F' F G D)_ki"
    D = l21_D(X, F, G)
    return G * (F.T @ X @ D) / (F.T @ F @ G @ D)


def l21_F(X, F, G):
    "F_jk <- F_jk (X D G')_jk / (F G D G')_jk"
    D = l21_D(X, F, G)
    return F * (X @ D @ G.T) / (F @ G @ D @ G.T)


def l21_loss(X, F, G):
    "||X - F G||_2,1, the sum over columns"
    return sum(np.linalg.norm(X[:, i] - F @ G[:, i]) for i in range(X.shape[1]))


# --- Gao, Nie, Cai & Huang 2015, as released: min sum_i min(||x_i - F g_i||, theta), X (d x n) ~ F G', orthogonal G

def capped_D(X, F, G, theta):
    "D_ii = 1 / (2 ||x_i - F g_i||), 0 where that norm exceeds theta"
    d = np.array([np.linalg.norm(X[:, i] - F @ G[i]) for i in range(X.shape[1])])
    return np.diag(np.where(d > theta, 0., .5 / d))


def capped_F(X, F, G, D):
    "F <- F (X D G) / (F G' D G)"
    return F * (X @ D @ G) / (F @ G.T @ D @ G)


def capped_G(X, F, G, D, eps=2.2e-16):
    "G <- G sqrt( (D X' F) / (D G G' X' F + eps) ): eps makes 0 of the 0/0 of an outlier"
    return G * np.sqrt((D @ X.T @ F) / (D @ G @ G.T @ X.T @ F + eps))


# --- Du, Li & Shen 2012 and Guan et al. 2017: min sum_ij of a loss of e_ij, X (p x n) ~ F G, Q the p x n matrix of weights

def entry_G(X, F, G, Q):
    "G <- G (F' (Q o X)) / (F' (Q o F G))"
    return G * (F.T @ (Q * X)) / (F.T @ (Q * (F @ G)))


def entry_F(X, F, G, Q):
    "F <- F ((Q o X) G') / ((Q o F G) G')"
    return F * ((Q * X) @ G.T) / ((Q * (F @ G)) @ G.T)


def cim_Q(X, F, G):
    "exp(-e^2 / 2 sigma^2), sigma^2 = sum e^2 / 2pn"
    E = X - F @ G
    return np.exp(-E ** 2 / (2 * np.mean(E ** 2) / 2))


def huber_Q(X, F, G):
    "1 up to c, c / |e| beyond; c the median of |e|"
    E = np.abs(X - F @ G)
    c = np.median(E)
    return np.where(E <= c, 1., c / E)


def cauchy_Q(X, F, G, gamma):
    "1 / (1 + (e / gamma)^2)"
    return 1 / (1 + ((X - F @ G) / gamma) ** 2)


def nagy(E, gamma, steps=200):
    "gamma^2 <- gamma^2 (N / sum 1/(1 + (e/gamma)^2) - 1)"
    for _ in range(steps):
        gamma = gamma * np.sqrt(E.size / np.sum(1 / (1 + (E / gamma) ** 2)) - 1)
    return gamma
