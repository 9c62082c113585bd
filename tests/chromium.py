"""A headless Chromium driven over its debugging pipe (Chrome DevTools Protocol): no driver, no package."""
import contextlib
import functools
import http.server
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time

FLAGS = ("--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
         "--disable-sync --disable-default-apps --disable-extensions --mute-audio --hide-scrollbars").split()


def find():
    "The browser's program, or None"
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@contextlib.contextmanager
def serve(folder):
    "Serve `folder` on this machine; gives the address"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Browser:
    "One tab. `call` sends a command and waits for its answer; every event on the way is kept in `events`"
    def __init__(self, program):
        self.profile, self.n, self.events, self.buffer = tempfile.mkdtemp(), 0, [], b""
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()

        def pipes():                     # the browser reads commands from 3 and writes to 4
            fds = os.dup(to_read), os.dup(to_write)
            os.dup2(fds[0], 3)
            os.dup2(fds[1], 4)
        self.process = subprocess.Popen(
            [program, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "about:blank"], start_new_session=True,
            preexec_fn=pipes, pass_fds=(3, 4, to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"): self.call(f"{domain}.enable")

    def receive(self, seconds):
        "The next message; TimeoutError when none comes"
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            if not select.select([self.read], [], [], max(0, end - time.monotonic()))[0]: raise TimeoutError("the browser is silent")
            block = os.read(self.read, 1 << 20)
            if not block: raise EOFError("the browser has closed")
            self.buffer += block
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **params):
        self.n += 1
        message = {"id": self.n, "method": method, "params": params, **({"sessionId": self.session} if self.session else {})}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (m := self.receive(60)).get("id") != self.n: self.events.append(m)
        if "error" in m: raise RuntimeError(f"{method}: {m['error']['message']}")
        return m["result"]

    def goto(self, url):
        "Load `url`, and return what happened on the way"
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events): self.events.append(self.receive(60))
        return self.events

    def evaluate(self, script):
        "The value of a JavaScript expression; promises are waited for"
        r = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in r: raise RuntimeError(r["exceptionDetails"].get("exception", {}).get("description", r))
        return r["result"].get("value")

    def size(self, width, height=900):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name):
        "light or dark"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def close(self):
        os.close(self.write)
        try: self.process.wait(5)
        except subprocess.TimeoutExpired: os.killpg(self.process.pid, signal.SIGKILL)
        os.close(self.read)
        shutil.rmtree(self.profile, ignore_errors=True)
