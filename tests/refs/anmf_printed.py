"""Algorithm 1 of Luo, Zhang & Huang (ICML 2020), line by line, in the paper's letters.

Columns are samples: Y, Z, H, J are m x N, A, At (A with a tilde), B, Bt are m x n, X is n x N, U is N x n. Every
inverse is as large as printed (N x N for H and U). `correct` names the misprints to put right:

    "R2"   J uses A X and M4 instead of At X and M3                    (19)
    "B"    the second line for Bt becomes the line for B               Algorithm 1
    "mu"   the missing mu on X X' in the updates of A and At           Algorithm 1
    "M"    the multipliers are paired as in (16), not as in (17)-(18)  Algorithm 1; without it the shapes clash

Slow on purpose: this is what the library is checked and timed against.
"""
import numpy as np

ALL = frozenset({"R2", "B", "mu", "M"})


def start(A, X):
    "Initialization: A0 and X0 given, U0 = X0', Bt0 = At0 = A0, M0 = 0"
    (m, n), N = A.shape, X.shape[1]
    return dict(H=A @ X, J=A @ X, U=X.T.copy(), X=X.copy(), A=A.copy(), At=A.copy(), B=A.copy(), Bt=A.copy(),
                M1=np.zeros((m, n)), M2=np.zeros((m, n)), M3=np.zeros((m, N)), M4=np.zeros((m, N)), M5=np.zeros((N, n)))


def iterate(s, Y, Z, a, b, g, l, mu, correct=ALL):  # noqa: E741
    "One pass through the loop of Algorithm 1"
    s = dict(s)
    N, n = s["U"].shape
    eye = np.eye
    # Update (H, B, J)
    R1 = 2*a*Y + 2*g*(l*s["A"] + Z @ s["U"] - l*s["At"]) @ s["U"].T + mu*(s["At"] @ s["X"] + s["M3"]/mu)               # (19)
    if "R2" in correct: R2 = 2*b*Y + mu*(s["A"] @ s["X"] + s["M4"]/mu)
    else: R2 = 2*b*Y + mu*(s["At"] @ s["X"] + s["M3"]/mu)
    s["H"] = R1 @ np.linalg.inv(2*a*eye(N) + mu*eye(N) + 2*g*s["U"] @ s["U"].T)
    s["Bt"] = np.maximum(0, s["At"] + s["M1"]/mu)
    s["J"] = R2/(2*b + mu)
    # Update (U, Bt)
    D = s["H"] - Z
    R3 = 2*g*D.T @ (l*s["A"] - l*s["At"]) + mu*(s["X"].T + s["M5"]/mu)                                                 # (20)
    s["U"] = np.maximum(0, np.linalg.inv(2*g*D.T @ D + mu*eye(N)) @ R3)
    if "B" in correct: s["B"] = np.maximum(0, s["A"] + s["M2"]/mu)
    else: s["Bt"] = np.maximum(0, s["A"] + s["M1"]/mu)
    # Update A, At, X
    inner = np.linalg.inv(2*g*l**2*eye(n) + mu*eye(n) + (mu if "mu" in correct else 1)*s["X"] @ s["X"].T)
    R4 = (2*g*l*(s["H"] @ s["U"] + l*s["At"] - Z @ s["U"]) + mu*(s["B"] - s["M2"]/mu)
          + mu*(s["J"] - s["M4"]/mu) @ s["X"].T)                                                                       # (21)
    s["A"] = R4 @ inner
    R5 = (2*g*l*(l*s["A"] + Z @ s["U"] - s["H"] @ s["U"]) + mu*(s["Bt"] - s["M1"]/mu)
          + mu*(s["H"] - s["M3"]/mu) @ s["X"].T)                                                                       # (22)
    s["At"] = R5 @ inner
    R6 = s["At"].T @ (s["H"] - s["M3"]/mu) + s["A"].T @ (s["J"] - s["M4"]/mu) + s["U"].T - s["M5"].T/mu                # (23)
    s["X"] = np.linalg.inv(s["At"].T @ s["At"] + s["A"].T @ s["A"] + eye(n)) @ R6
    # Update M
    gaps = {"AtX-H": s["At"] @ s["X"] - s["H"], "AX-J": s["A"] @ s["X"] - s["J"], "At-Bt": s["At"] - s["Bt"],
            "A-B": s["A"] - s["B"], "X'-U": s["X"].T - s["U"]}
    order = ("At-Bt", "A-B", "AtX-H", "AX-J", "X'-U") if "M" in correct else ("AtX-H", "AX-J", "At-Bt", "A-B", "X'-U")
    for i, name in enumerate(order, 1): s[f"M{i}"] = s[f"M{i}"] + mu*gaps[name]
    return s


def primal(s):
    "Norm of the violated constraints of (15)"
    parts = (s["At"] @ s["X"] - s["H"], s["A"] @ s["X"] - s["J"], s["At"] - s["Bt"], s["A"] - s["B"], s["X"].T - s["U"])
    return np.sqrt(sum((p**2).sum() for p in parts))
