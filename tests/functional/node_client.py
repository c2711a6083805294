# SPDX-License-Identifier: Apache-2.0
"""A program that speaks the node protocol (docs/formats/node.md) with a daemon of this node."""
import json, os, queue, socket, struct, threading, time


class Refused(Exception):
    def __init__(self, answer):
        super().__init__(answer["error"])
        self.errno, self.answer = answer["errno"], answer


class Client:
    """One connection. Events and data of streams are collected while it is there."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lock = threading.Lock()
        self.answers, self.events, self.data = {}, queue.Queue(), {}
        self.changed = threading.Condition()
        self.last_id, self.closed = 0, None
        self.send({"wisp": 1, "node": "test"})
        self.node = json.loads(self.frame()[1])["node"]
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.hear, self.live)]
        for thread in self.threads:
            thread.start()

    def raw(self, kind, payload=b""):
        with self.lock:
            self.socket.sendall(struct.pack(">IB", len(payload) + 1, kind) + payload)

    def send(self, message):
        self.raw(1, json.dumps(message).encode())

    def take(self, n):
        data = b""
        while len(data) < n:
            part = self.socket.recv(n - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def frame(self):
        length, kind = struct.unpack(">IB", self.take(5))
        return kind, self.take(length - 1)

    def hear(self):
        try:
            while True:
                self.heard(*self.frame())
        except (EOFError, OSError) as e:
            with self.changed:
                self.closed = self.closed or repr(e)
                self.changed.notify_all()

    def heard(self, kind, payload):
        if kind == 2:
            stream = struct.unpack(">I", payload[:4])[0]
            with self.changed:
                self.data.setdefault(stream, []).append(payload[4:])
                self.changed.notify_all()
        if kind != 1:
            return
        message = json.loads(payload)
        with self.changed:
            if "re" in message:
                self.answers.setdefault(message["re"], []).append(message)
            elif message.get("event") == "closed":
                self.closed = message["error"]
            elif "event" in message:
                self.events.put((time.monotonic(), message))
            self.changed.notify_all()

    def live(self):
        try:
            while self.closed is None:
                self.raw(3)
                with self.changed:
                    self.changed.wait_for(lambda: self.closed is not None, 1)
        except OSError:
            pass

    def wait(self, what, seconds=30):
        end = time.monotonic() + seconds
        with self.changed:
            while not what():
                if self.closed is not None:
                    raise EOFError(self.closed)
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self.changed.wait(left)

    def begin(self, op, **members):
        self.last_id += 1
        self.send({"op": op, "id": self.last_id, **members})
        return self.last_id

    def finish(self, id, seconds=30):
        """The answer as one: its parts' values and errors together."""
        self.wait(lambda: any(m.get("done") for m in self.answers.get(id, [])), seconds)
        parts = self.answers.pop(id)
        last = parts[-1]
        if "errno" in last:
            raise Refused(last)
        values = {int(k): v for m in parts for k, v in m.get("values", {}).items()}
        errors = {e["node"]: e for m in parts for e in m.get("errors", [])}
        return {"value": last.get("value"), "ok": last.get("ok"), "values": values,
                "errors": errors}

    def ask(self, op, seconds=30, **members):
        return self.finish(self.begin(op, **members), seconds)

    def event(self, name, seconds=30):
        """The next event of that name, and when it came."""
        end = time.monotonic() + seconds
        while True:
            when, message = self.events.get(timeout=max(0.01, end - time.monotonic()))
            if message["event"] == name:
                return when, message

    def open(self, stream, **members):
        """A `connect`, when it is done."""
        self.data.setdefault(stream, [])
        return self.ask("connect", stream=stream, **members)

    def write(self, stream, data):
        self.raw(2, struct.pack(">I", stream) + data)

    def close(self):
        """The threads end first: the descriptor's number may be another's then."""
        with self.changed:
            self.closed = self.closed or "by us"
            self.changed.notify_all()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        for thread in self.threads:
            thread.join()
        self.socket.close()


def refused(errno, text, what):
    """what() is refused with that code and reason."""
    try:
        got = what()
    except Refused as e:
        assert e.errno == errno and text in str(e), f"refused with {e.errno} ({e}), not {errno} ({text})"
        return e.answer
    raise AssertionError(f"not refused: {got}")
