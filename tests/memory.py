"""How much memory the tensors of a computation hold at once, on any machine."""
import weakref

import torch


class Count(torch.utils._python_dispatch.TorchDispatchMode):
    "The largest number of bytes that live tensors created inside hold at once"
    def __init__(self):
        super().__init__()
        self.live, self.top, self.seen = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, torch.Tensor):
                s = t.untyped_storage()
                key = s.data_ptr()
                if key not in self.seen and s.nbytes():
                    self.seen.add(key)
                    self.live += s.nbytes()
                    self.top = max(self.top, self.live)
                    weakref.finalize(s, self.drop, key, s.nbytes())
        return out

    def drop(self, key, size):
        if key in self.seen:
            self.seen.discard(key)
            self.live -= size
