# SPDX-License-Identifier: Apache-2.0
"""Daemons of made-up nodes on loopback, each with a name, a port and a state folder of its own."""
import os, re, signal, subprocess, time

from node_client import Client


class Daemon:
    def __init__(self, build, folder, name, *options, listen=True, user=None, env=None):
        self.program, self.name, self.options = f"{build}/src/node/wispd", name, options
        self.state, self.port, self.listen, self.user = f"{folder}/{name}", 0, listen, user
        self.env = {**os.environ, **(env or {})}
        self.socket, self.log = f"{self.state}/socket", f"{folder}/{name}.log"
        self.process = None
        self.start()

    def start(self):
        listen = ["--listen", f"127.0.0.1:{self.port}"] if self.listen else []
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [self.program, "--state", self.state, "--name", self.name, "--grace", "8", "--cgroups", "none",
                 "--topology", "pack:1 numa:1 core:4 pu:2", *listen, *self.options],
                stderr=log, env=self.env, user=self.user, group=self.user,
                extra_groups=None if self.user is None else [])
        for _ in range(200):
            try:
                Client(self.socket).close()
                break
            except OSError:
                if self.process.poll() is not None:
                    raise AssertionError(self.said())
                time.sleep(0.05)
        if self.listen:
            self.port = int(re.findall(r"at 127.0.0.1 port (\d+)", self.said())[-1])

    def said(self):
        with open(self.log) as log:
            return log.read()

    @property
    def address(self):
        return f"{self.name}@127.0.0.1:{self.port}"

    def client(self):
        return Client(self.socket)

    def kill(self, signo=signal.SIGKILL):
        """Its exit code."""
        if self.process:
            self.process.send_signal(signo)
            code = self.process.wait(20)
            self.process = None
            return code


def end_all(daemons):
    for d in daemons:
        d.kill()
