#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One request on a control socket: bare-ask.py SOCKET COMMAND [NAME=VALUE...] [KEY...]

Prints the result, or the member that the KEYs lead to. Exit code 1 and the error's text when
the VMM refuses, or when it hangs up.
"""

import json
import socket
import sys


def main(path, command, *words):
    request = {"version": 1, "command": command}
    request.update(w.split("=", 1) for w in words if "=" in w)
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(path)
        s.sendall(json.dumps(request).encode() + b"\n")
        line = s.makefile().readline()
    answer = json.loads(line) if line else {"ok": False, "error": {"text": "hung up"}}
    if not answer["ok"]:
        print(answer["error"]["text"])
        return 1
    value = answer["result"]
    for key in words:
        if "=" not in key:
            value = value[int(key) if isinstance(value, list) else key]
    print(value if isinstance(value, (str, int)) else json.dumps(value))
    return 0


sys.exit(main(*sys.argv[1:]))
