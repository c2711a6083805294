# SPDX-License-Identifier: Apache-2.0
"""Functions of a test that run as another user.

No program is run for it, and nothing imported: the user may have no rights to Python's folder, and to the test's. So
they read and write text as UTF-8 alone, which is always there.
"""

import ctypes
import json
import os
import pwd
import traceback

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def enter(path):
    """The network of that file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        check(libc.setns(fd, 0))
    finally:
        os.close(fd)


def become(name):
    """With the groups that the user's parts of clusters have."""
    user = pwd.getpwnam(name)
    os.setgroups(os.getgrouplist(name, user.pw_gid) + [os.stat("/dev/kvm").st_gid])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.chdir("/")


class Child:
    """Runs function(*arguments) as that user, in that network (None: this one), from now on."""

    def __init__(self, name, network, function, *arguments):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                if network:
                    enter(network)
                become(name)
                said = {"value": function(*arguments)}
            except BaseException:
                said = {"failed": traceback.format_exc()}
            with open(writing, "wb") as out:
                out.write(json.dumps(said).encode())
            os._exit(0)
        os.close(writing)
        self.reading = reading

    def result(self):
        """What it returned, which is JSON; RuntimeError with all that is known when it failed."""
        with open(self.reading, encoding="utf-8") as said:
            text = said.read()
        status = os.waitpid(self.pid, 0)[1]
        answer = json.loads(text) if text else {"failed": f"it said nothing and ended with status {status:#x}"}
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer["value"]
