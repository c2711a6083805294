#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checkpoints and what goes wrong: full file systems, writers killed at any moment, damage. The
# epochs there were are always whole and nothing else is to be seen.
. "$(dirname "$0")/lib.sh"

engine=$WISP_BUILD/tests/mover-engine
dir=$TMP/ck

# whole [FOLDER]: every epoch there is can be verified and has the memory it should have.
whole() {
	wisp checkpoint verify "${1:-$dir}" >"$TMP/verify" 2>&1 || { cat "$TMP/verify" >&2; fail "verify"; }
	"$engine" check "${1:-$dir}" >"$TMP/check" 2>&1 || { cat "$TMP/check" >&2; fail "check"; }
}

epochs() {
	wisp checkpoint list --json "$1" | python3 -c 'import json, sys
print(*[e["epoch"] for e in json.load(sys.stdin)])'
}

# The commands, with what they say.
"$engine" write "$dir" 16 full none >/dev/null
"$engine" write "$dir" 16 incremental lz4 >/dev/null
"$engine" write "$dir" 16 incremental zstd >/dev/null
expect "epochs" "$(epochs "$dir")" "1 2 3"
wisp checkpoint list "$dir" | grep -q '^ *3  incremental *2 *16 MiB' || fail "list: $(wisp checkpoint list "$dir")"
wisp checkpoint show --at 2 "$dir" | grep -q '^parent *1$' || fail "show"
wisp checkpoint show --json "$dir" | python3 -c 'import json, sys
m = json.load(sys.stdin)
assert m["epoch"] == 3 and m["parent"]["epoch"] == 2 and m["state"] == 9, m'
whole
refuse 1 "no epoch 9 in $dir" wisp checkpoint show --at 9 "$dir"
refuse 2 "say by --keep how many" wisp checkpoint prune "$dir"
refuse 2 "give one folder" wisp checkpoint list
refuse 1 "cannot open checkpoint folder $TMP/none" wisp checkpoint merge "$TMP/none"
[ ! -e "$TMP/none" ] || fail "merge made a folder"
printf x | dd of="$dir/2/pages.0" bs=1 seek=5000 conv=notrunc status=none
refuse 1 "2/pages.0 is damaged at byte" wisp checkpoint verify "$dir"
refuse 1 "2/pages.0 is damaged at byte" "$engine" check "$dir"
refuse 1 "2/pages.0 is damaged at byte" wisp checkpoint merge "$dir"
expect "epochs" "$(epochs "$dir")" "1 2 3"
rm -rf "$dir"

# Killed writers: at any moment, full and incremental, and merges and prunes.
python3 - "$engine" "$dir" <<'END' || fail "killed writers"
import json, os, random, subprocess, sys, time
engine, folder = sys.argv[1:]
random.seed(1)
killed = 0


def numbers():
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(n) for n in names if n.isdigit())


def run(command, longest, marker):
    """Runs and kills after a random time from the marker on; whether it was killed."""
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if marker:
        assert p.stdout.readline() == b"writing\n", p.stderr.read()
    time.sleep(random.random() * longest)
    p.kill()
    err = p.communicate()[1]
    assert p.returncode in (0, -9), (command, err)
    return p.returncode == -9


for i in range(60):
    before = numbers()
    if len(before) > 6 or (before and i % 6 == 5):
        if len(before) > 9:
            command = ["prune", "--keep", "3"]
        else:
            command = ["merge", "--at", str(random.choice(before))]
        killed += run(["wisp", "checkpoint", *command, folder], 0.03, False)
        assert set(before[-3:]) <= set(numbers()) or command[0] == "merge"
    else:
        kind = "incremental" if before and i % 4 else "full"
        killed += run([engine, "write", folder, "24", kind, random.choice(["none", "lz4", "zstd"])],
                      0.06, True)
        assert numbers()[:len(before)] == before, (before, numbers())
    if numbers():
        out = subprocess.run(["wisp", "checkpoint", "verify", "--json", folder],
                             stdout=subprocess.PIPE, check=True).stdout
        assert [e["epoch"] for e in json.loads(out) if e["ok"]] == numbers()
print(killed, "of 60 killed;", numbers())
assert killed >= 15 and numbers()
END
whole
"$engine" write "$dir" 24 full none >/dev/null
[ -z "$(find "$dir" -name '.tmp-*')" ] || fail "dead writers' files are left"
rm -rf "$dir"

# A limit on the size of files: the same path as any failing write.
"$engine" write "$dir" 8 full none >/dev/null
(ulimit -f 2048; trap '' XFSZ; refuse 1 "File too large" "$engine" write "$dir" 8 full none)
expect "epochs" "$(epochs "$dir")" "1"
expect "files" "$(ls -A "$dir" | tr '\n' ' ')" ".lock 1 "
whole

# A full file system, in a mount namespace of our own.
unshare -m true 2>/dev/null && map= || map=-r
unshare $map -m true 2>/dev/null || skip "no mount namespaces here: a full file system was not tested"
WISP_FULL=$TMP/full unshare $map -m sh -eu -c '
	. "$0"
	mkdir "$WISP_FULL" && mount -t tmpfs -o size=40m none "$WISP_FULL" && trap "" EXIT
	check() {
		wisp checkpoint verify "$WISP_FULL" >/dev/null && "$1" check "$WISP_FULL" >/dev/null
	}
	"$1" write "$WISP_FULL" 16 full none >/dev/null
	"$1" write "$WISP_FULL" 16 incremental none >/dev/null
	used=$(du -s "$WISP_FULL" | cut -f 1)
	for n in 1 2 3; do
		if "$1" write "$WISP_FULL" 32 full none >/dev/null 2>"$WISP_FULL.err"; then exit 10; fi
		grep -q "pages.*No space left on device" "$WISP_FULL.err" || exit 11
		[ "$(du -s "$WISP_FULL" | cut -f 1)" = "$used" ] || exit 12
		check "$1" || exit 13
	done
	dd if=/dev/zero of="$WISP_FULL/filler" bs=1M count=100 2>/dev/null || true
	if wisp checkpoint merge "$WISP_FULL" 2>"$WISP_FULL.err"; then exit 14; fi
	check "$1" || exit 15
	rm "$WISP_FULL/filler"
	wisp checkpoint merge "$WISP_FULL" >/dev/null || exit 16
	check "$1" || exit 17
	"$1" write "$WISP_FULL" 16 incremental lz4 >/dev/null || exit 18
	check "$1" || exit 19
' /dev/null "$engine" || fail "a full file system: step $?"
