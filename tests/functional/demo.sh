#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The demo is a test of the whole: what it tells of each step has to be so, and its answer right. Alone: tests/run demo
. "$(dirname "$0")/lib.sh"

out=$TMP/demo
BUILD=$WISP_BUILD "$TOP/demo/run" --out "$out" || fail "the demo ended with exit code $?"
python3 - "$out" <<'END' || fail "the story of the demo"
import json, re, sys

story = json.load(open(f"{sys.argv[1]}/story.json"))
figures = dict(story["figures"])
nodes = {lane["vm"]: [span["node"] for span in lane["spans"]] for lane in story["lanes"]}
states = {lane["vm"]: {span["state"] for span in lane["spans"]} for lane in story["lanes"]}
pauses = {pause["what"] for pause in story["pauses"]}

assert story["verdict"] == "right", story["verdict"]
assert figures["HPCC"] == "passed", figures
assert int(figures["records of each in the file on GlusterFS"]) > 0, figures
assert nodes["hpc-2"][0] == "node3" and "node1" in nodes["hpc-2"] and "moving" in states["hpc-2"], nodes
assert "lost" in states["hpc-1"] and nodes["hpc-1"][-1] != "node2", nodes
assert pauses == {"migration, hpc-2", *(f"checkpoint, hpc-{i}" for i in range(3))}, pauses
saved = [p["step"] for p in story["progress"]]
assert any(b < a for a, b in zip(saved, saved[1:])), "the restart did not go back to the checkpoint"
report = open(f"{sys.argv[1]}/report.html").read()
assert report.count("<svg") >= 5 and not re.search(r"(src|href)=.http", report), "the report"
END
echo "demo: what it tells is so"
