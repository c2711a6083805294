# SPDX-License-Identifier: Apache-2.0
"""Plays wispd for a wisp-part: sets it up, asks, hears events, has streams (docs/formats/node.md)."""
import json
import select
import socket
import struct
import subprocess
import sys
import threading
import time

MESSAGE, DATA, ALIVE = 1, 2, 3
PATIENCE = 60


class Refused(Exception):
    """An answer with errno and error."""

    def __init__(self, answer):
        super().__init__(answer["error"])
        self.answer = answer


def fail(text):
    print("FAIL:", text, file=sys.stderr)
    sys.exit(1)


class Part:
    """A wisp-part and the daemon's end of its socket."""

    def __init__(self, program, setup, log):
        ours, theirs = socket.socketpair()
        with open(log, "ab") as errors:
            self.process = subprocess.Popen([program], stdin=theirs, stdout=errors, stderr=errors)
        theirs.close()
        self.socket = ours
        self.buffer = b""
        self.events = []
        self.answers = {}
        self.streams = {}
        self.ended = set()
        self.id = 0
        self.stream = -1
        self.lock = threading.Lock()
        threading.Thread(target=self.live, daemon=True).start()
        self.value = self.ask("setup", **setup)

    def live(self):
        """Says so, also while nobody asks."""
        try:
            while True:
                self.frame(ALIVE, b"")
                time.sleep(1)
        except OSError:
            pass

    def frame(self, kind, payload):
        with self.lock:
            self.socket.sendall(struct.pack(">IB", len(payload) + 1, kind) + payload)

    def send(self, op, **members):
        self.id += 1
        self.frame(MESSAGE, json.dumps({"op": op, "id": self.id, **members}).encode())
        return self.id

    def hear(self, seconds):
        """Takes what has come."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return
        data = self.socket.recv(1 << 20)
        if not data:
            fail("wisp-part has gone: %s" % self.process.wait())
        self.buffer += data
        while len(self.buffer) >= 4:
            size = struct.unpack(">I", self.buffer[:4])[0]
            if len(self.buffer) < 4 + size:
                break
            self.take(self.buffer[4], self.buffer[5:4 + size])
            self.buffer = self.buffer[4 + size:]

    def take(self, kind, payload):
        if kind == DATA:
            number = struct.unpack(">I", payload[:4])[0]
            self.streams[number] = self.streams.get(number, b"") + payload[4:]
            if len(payload) == 4:
                self.ended.add(number)
            else:
                self.frame(MESSAGE, json.dumps({"op": "credit", "stream": number,
                                                "bytes": len(payload) - 4}).encode())
        elif kind == MESSAGE:
            message = json.loads(payload)
            if "re" in message:
                self.answers[message["re"]] = message
            elif "event" in message:
                self.events.append(message)

    def until(self, what, test, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while True:
            found = test()
            if found:
                return found
            if time.monotonic() > end:
                fail("%s: not within %d s; events: %s, answers: %s" %
                     (what, seconds, self.events, self.answers))
            self.hear(0.1)

    def answer(self, number, what="answer"):
        message = self.until(what, lambda: self.answers.pop(number, None))
        if "errno" in message:
            raise Refused(message)
        return message.get("value")

    def ask(self, op, **members):
        return self.answer(self.send(op, **members), op)

    def event(self, name, vm):
        def find():
            for event in self.events:
                if event["event"] == name and event.get("vm") == vm:
                    self.events.remove(event)
                    return event
            return None
        return self.until("event %s of %s" % (name, vm), find)

    def connect(self, vm, what):
        self.stream += 2
        self.ask("connect", vm=vm, what=what, stream=self.stream)
        return self.stream

    def write(self, stream, data):
        self.frame(DATA, struct.pack(">I", stream) + data)

    def refused(self, text, op, **members):
        try:
            self.ask(op, **members)
        except Refused as reason:
            if text not in str(reason):
                fail("%s was refused with \"%s\", not \"%s\"" % (op, reason, text))
            return reason.answer
        return fail("%s was not refused" % op)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.socket.close()

    def leave(self):
        """The daemon ends, and so does the part."""
        self.socket.close()
        code = self.process.wait(timeout=20)
        if code:
            fail("wisp-part ended with %d" % code)
