"""A headless Chromium, driven by its own protocol over a pair of pipes: no library needed."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --remote-debugging-pipe"
).split()
# The browser reads what it is told from descriptor 3 and answers on 4.
START = 'exec "$@" 3<&"$TOLD" 4>&"$ANSWERS"'


class Browser:
    """One page of a browser that is started for it."""

    def __init__(self, profile, *, width=1280, height=900, dark=False):
        told, self._out = os.pipe()
        self._in, answers = os.pipe()
        # Away from 3 and 4.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (told, answers)]
        arguments = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", START, "bash", *arguments],
            env={**os.environ, "TOLD": str(ends[0]), "ANSWERS": str(ends[1])},
            pass_fds=ends, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (told, answers, *ends):
            os.close(end)
        self._rest, self._count, self._session = b"", 0, None
        self.said, self.asked = [], []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "DOM", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.show(width, height, dark=dark)

    def show(self, width, height, *, dark=False):
        """Change the size of the page, and whether it is to be dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def call(self, method, *, seconds=120, **params):
        """Call a method of the protocol and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while b"\0" in self._rest:
                line, _, self._rest = self._rest.partition(b"\0")
                answer = json.loads(line)
                if answer.get("id") == self._count:
                    assert "error" not in answer, answer
                    return answer["result"]
                self._take_note(answer.get("method"), answer.get("params"))
            if select.select([self._in], [], [], 1)[0]:
                data = os.read(self._in, 1 << 20)
                assert data, "the browser has ended"
                self._rest += data
        raise TimeoutError(method)

    def _take_note(self, event, params):
        if event == "Runtime.exceptionThrown":
            self.said.append(params["exceptionDetails"]["exception"].get("description"))
        elif event == "Log.entryAdded":
            self.said.append(params["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])

    def goto(self, address):
        """Open an address, or load it again."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState == 'complete'")

    def run(self, script):
        """Return the value of an expression in the page; of a promise, what it comes to."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script, seconds=240):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.run(f"!!({script})"):
                return found
            time.sleep(0.3)
        raise TimeoutError(f"{script}; the page says: {self.run('document.body.innerText')}")

    def click(self, selector):
        """Click the first element of a selector, as a person does: it has to be there to see."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView("
            "{block: 'center', behavior: 'instant'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1],
                      button="left", clickCount=1)  # fmt: skip

    def press(self, key, code=0):
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def choose_files(self, selector, *files):
        """Give files to an input of files, as if they had been chosen."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

    def screenshot(self, file, *, whole=True):
        """Write what the page looks like, to its end."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        file.write_bytes(base64.b64decode(found["data"]))

    def close(self):
        """End the browser."""
        self._process.terminate()
        self._process.wait(30)
        os.close(self._in)
        os.close(self._out)
