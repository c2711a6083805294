#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An administrator's rules for images, which root's wispd holds a user's requests to: what is
# reserved, and what is started then.
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"
command -v openssl >/dev/null || skip "no openssl"
[ "$(id -u)" = 0 ] || skip "needs root: the daemon that binds a user is root's"

cd "$TMP"
export WISP_RUN="$TMP/run" WISP_CACHE="$TMP/cache"
mkdir policy keys
for who in ann eve; do
	openssl genpkey -algorithm ed25519 -out $who.key 2>/dev/null
done
openssl pkey -in ann.key -pubout -out keys/ann.pub

# make_image HOME NAME BASE WORD: as if it had been built
make_image() {
	mkdir -p "$1/images/$2"
	python3 - "$1/images/$2" "$@" <<'END'
import hashlib, json, sys
folder, _, name, base, word = sys.argv[1:]
parts = {}
for part in ["vmlinux", "vmlinuz", "initrd", "root.squashfs"]:
    open(f"{folder}/{part}", "w").write(word)
    parts[part] = {"size": len(word), "sha256": hashlib.sha256(word.encode()).hexdigest()}
json.dump({"format": 1, "name": name, "created": "now", "builder": "test", "key": word, "parts": parts,
           "environment": {"base": base, "kernel": "linux-image-cloud-amd64"}}, open(f"{folder}/manifest.json", "w"))
END
}

make_image site hpc debian:bookworm site
mkdir -p user/images
cp -r site/images/hpc user/images
make_image user own debian:bookworm own
make_image user upon image:hpc@sha256:0 upon

# Root's daemon has images of its own; the user has others, and tells what there is to tell.
start() {
	WISP_HOME="$TMP/site" "$WISP_BUILD/src/node/wispd" --state "$TMP/state" --name n1 --cgroups none --grace 2 \
		--topology "pack:1 numa:1 core:4 pu:2" --policy "$TMP/policy" --keys "$TMP/keys" 2>>"$TMP/log" &
	pid=$!
	for _ in $(seq 100); do
		if wisp node list --socket "$TMP/state/socket" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	cat "$TMP/log" >&2
	fail "wispd does not answer"
}
stop() {
	if [ -n "${pid:-}" ]; then
		kill "$pid" 2>/dev/null || :
		wait "$pid" || :
	fi
	pid=
}
at_exit stop
at_failure=logs
logs() {
	cat "$TMP/log"
}
printf 'rule: ours\nbecause: it is supported\nbase: "image:h*"\n' >policy/base.yaml
export WISP_HOME="$TMP/user"
start
run() {
	timeout 60 wisp run --socket "$TMP/state/socket" --policy "$TMP/policy" --keys "$TMP/keys" -q "$@" -- true
}
mine() {
	python3 "$(dirname "$0")/node-image.py" "$TMP/state/socket" "$TMP/policy" "$@"
}

# The user's own image, in place of the one that the rule leaves: refused, with the rule's name.
printf 'base: image:hpc\n' >job.yaml
refuse 1 "rule ours of this site ($TMP/policy/base.yaml:3:7: base) does not let image own run: image own is not signed" \
	run --image own job.yaml
expect "not reserved" "$(mine reserve own)" "13 rule ours of this site"
expect "nor without a word" "$(mine reserve)" "22 \"image\" has to have"
# Nor one that only has its name, or claims another's signature.
make_image user hpc debian:bookworm mine
expect "of that name" "$(mine reserve hpc)" "13 rule ours of this site"
wisp image sign upon --key eve.key
expect "signed by another" "$(mine reserve upon)" "13 rule ours of this site"
expect "another's signature" "$(mine reserve own upon)" "13 rule ours of this site"

# The site's own, as it is; and one that was built upon it, signed by the site.
rm -r user/images/hpc
cp -r site/images/hpc user/images
expect "the site's" "$(mine reserve hpc)" "0"
wisp image sign upon --key ann.key
expect "signed" "$(mine reserve upon)" "0"
wisp image sign own --key ann.key
expect "of another base" "$(mine reserve own)" "13 rule ours of this site"

# What was reserved is what may be started, and nothing else, whoever asks and whatever for.
expect "other than reserved" "$(mine start hpc own)" "1 was reserved for the image"
expect "restored of another" "$(mine restore hpc own)" "1 was reserved for the image"
expect "received" "$(mine receive hpc own)" "1 was reserved for the image"
expect "without a digest" "$(mine start hpc name)" "1 was reserved for the image"
expect "without an image" "$(mine start hpc nothing)" "1 was reserved for the image"
expect "as reserved" "$(mine start hpc hpc)" "11 has no network here yet"

# It survives the daemon.
stop
start
expect "other than reserved" "$(mine start hpc own)" "1 was reserved for the image"

# Without a rule an image is the user's own affair.
stop
printf 'cpus: ..2\n' >policy/base.yaml
start
expect "free" "$(mine reserve own)" "0"
expect "free, and not named" "$(mine reserve)" "0"
