#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The checkpoints of a whole job: what wisp checkpoint says of their folder, damage of any file, and
# what is removed, by one that is killed as well.
. "$(dirname "$0")/lib.sh"

job=$TMP/job
fresh() {
	rm -rf "$job"
	cp -r "$TOP/tests/golden/job-checkpoint-1" "$job"
}

fresh
wisp checkpoint list "$job" | grep -q '^ *2  lu  *2  *0.0 ms  *12.3 ms' || fail "list"
wisp checkpoint show --at 1 "$job" | grep -q '^lu-1  *10.78.0.3  *node1  *1 ' || fail "show"
wisp checkpoint show --json "$job" | python3 -c 'import json, sys
m = json.load(sys.stdin)
assert m["sequence"] == 2 and m["vms"][1]["epoch"] == 2 and m["tasks"][0]["stdout"] == 4711, m'
wisp checkpoint verify "$job" >"$TMP/said"
grep -q '^checkpoint 1: ok, 2 VMs' "$TMP/said" || fail "verify: $(cat "$TMP/said")"
refuse 1 "cannot open $job/checkpoint-3.json" wisp checkpoint verify --at 3 "$job"
refuse 1 "cannot open $job/checkpoint-3.json" wisp checkpoint show --at 3 "$job"
refuse 2 "give the folder of one of its VMs" wisp checkpoint merge "$job"
refuse 2 "say by --keep how many checkpoints" wisp checkpoint prune "$job"

# One bit in any file is found, and told with its VM.
flip='
import os, sys
at = os.stat(sys.argv[1]).st_size // 2
with open(sys.argv[1], "r+b") as f:
    f.seek(at)
    byte = f.read(1)[0] ^ 1
    f.seek(at)
    f.write(bytes([byte]))'
find "$job" -type f >"$TMP/files"
expect "files" "$(wc -l <"$TMP/files")" 14
while read -r file; do
	python3 -c "$flip" "$file"
	case $file in
	*/vm/*) text="VM $(echo "$file" | sed 's,.*/vm/\([^/]*\)/.*,\1,'): " ;;
	*) text="$file is damaged" ;;
	esac
	refuse 1 "$text" wisp checkpoint verify "$job"
	refuse 1 "$text" wisp checkpoint verify --json "$job"
	fresh
done <"$TMP/files"

# An epoch of the same number, but another one; one that is gone.
rm -rf "$job/vm/lu-1/2"
cp -r "$job/vm/lu-0/2" "$job/vm/lu-1/2"
refuse 1 "checkpoint 2, VM lu-1: $job/vm/lu-1/2 is not the epoch that was wanted" \
	wisp checkpoint verify "$job"
rm -rf "$job/vm/lu-1/2"
refuse 1 "checkpoint 2, VM lu-1: no epoch 2" wisp checkpoint verify "$job"
fresh

# What is removed, and what is not.
cp -r "$job/vm/lu-0" "$job/vm/lu-5"
mkdir "$job/vm/lu-0/.tmp-3"
echo half >"$job/checkpoint-3.json.tmp"
expect "all stays" "$(wisp checkpoint prune --keep 9 "$job")" \
	"0 checkpoints removed; of their VMs 2 epochs removed, 0 merged"
expect "leftovers" "$(find "$job" -name '*.tmp*'; ls "$job/vm")" "$(printf 'lu-0\nlu-1')"
wisp checkpoint verify "$job" >/dev/null
python3 -c '
import fcntl, sys, time
f = open(sys.argv[1], "a")
fcntl.flock(f, fcntl.LOCK_EX)
open(sys.argv[2], "w").close()
time.sleep(60)' "$job/.lock" "$TMP/locked" &
holder=$!
at_exit "kill $holder 2>/dev/null || :"
until [ -e "$TMP/locked" ]; do sleep 0.05; done
refuse 1 "another process makes or removes a checkpoint in $job" wisp checkpoint prune --keep 1 "$job"
wisp checkpoint verify "$job" >/dev/null
kill $holder
wait $holder 2>/dev/null || true
expect "one stays" "$(wisp checkpoint prune --keep 1 "$job")" \
	"1 checkpoints removed; of their VMs 2 epochs removed, 2 merged"
wisp checkpoint verify "$job" >/dev/null
expect "the second" "$(ls "$job")" "$(printf 'checkpoint-2.json\nvm')"

# Killed at any moment: each checkpoint that is there is whole.
for i in 0 1 2 3 4 5 6 7 8 9; do
	fresh
	wisp checkpoint prune --keep 1 "$job" >/dev/null &
	wisp=$!
	sleep "0.00$i"
	kill -9 $wisp 2>/dev/null || true
	wait $wisp 2>/dev/null || true
	wisp checkpoint verify "$job" >/dev/null || fail "killed after $i ms"
	[ -e "$job/checkpoint-2.json" ] || fail "the newest is gone"
	wisp checkpoint prune --keep 1 "$job" >/dev/null
	wisp checkpoint verify "$job" >/dev/null
	expect "files" "$(find "$job/vm" -name pages.0 | wc -l)" 2
done
