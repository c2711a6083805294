# SPDX-License-Identifier: Apache-2.0
"""One request with an image, by a client that is nobody's program: see node-image.sh.

    node-image.py SOCKET POLICY reserve [IMAGE [IMAGE WHOSE PROOF IS GIVEN]]
    node-image.py SOCKET POLICY start|restore|receive RESERVED STARTED    ("name": without its digest)

Prints 0, or the errno and the reason's end or beginning that tells.
"""

import hashlib
import json
import os
import subprocess
import sys

from node_client import Client, Refused

SOCKET, POLICY, OP, *IMAGES = sys.argv[1:]
DOCUMENT = "base: image:hpc\ncpus: 1\nmemory: 64M\n"
TOLD = ["rule ours of this site", "was reserved for the image", "has no network here yet", "\"image\" has to have"]


def image(name):
    """What `reserve` says of it."""
    shown = json.loads(subprocess.run(["wisp", "image", "show", name, "--json"], stdout=subprocess.PIPE, check=True).stdout)
    return {"name": name, "digest": shown["digest"]}


def proof(name):
    members = {"manifest": "manifest.json", "signature": "manifest.sig"}
    folder = os.environ["WISP_HOME"] + "/images/" + name
    if not os.path.exists(folder + "/manifest.sig"):
        return {}
    found = {}
    for member, file in members.items():
        with open(f"{folder}/{file}", encoding="utf-8") as f:
            found[member] = f.read()
    return {"proof": found}


def reserve(node, images):
    closed = subprocess.run(["wisp", "env", "merge", "--policy", POLICY, "/dev/stdin"], input=DOCUMENT.encode(),
                            stdout=subprocess.PIPE, check=True).stdout
    more = {"image": image(images[0]), **proof(images[-1])} if images else {}
    node.ask("reserve", cluster="lu-0123abcd", documents=[{"name": "job.yaml", "text": DOCUMENT}],
             digest=hashlib.sha256(closed.rstrip(b"\n")).hexdigest(),
             vms=[{"name": "lu-0", "address": "10.78.0.2"}], **more)


def reference(name):
    if name in ("name", "nothing"):
        return {"image": "hpc"} if name == "name" else {}
    found = image(name)
    return {"image": f"{name}@sha256:{found['digest']}"}


def main():
    node = Client(SOCKET)
    node.ask("session", session="a secret of sixteen bytes")
    try:
        reserve(node, IMAGES if OP == "reserve" else IMAGES[:1])
        if OP != "reserve":
            node.ask(OP, cluster="lu-0123abcd", hosts=[], vms=["lu-0"], **reference(IMAGES[1]))
        print(0)
    except Refused as refused:
        print(refused.errno, next((text for text in TOLD if text in str(refused)), refused))
    node.ask("release", cluster="lu-0123abcd")


main()
