#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp image: a build, a cached one without network, a killed and an interrupted one, damage.
. "$(dirname "$0")/lib.sh"

# Images of our own; the cache is the user's, so that nothing is downloaded twice.
export WISP_HOME="$TMP/home"
for tool in mmdebstrap sqfstar unshare; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
cp "$TOP/images/minimal.yaml" "$TMP/minimal.yaml"
spec=$TMP/minimal.yaml
folder=$WISP_HOME/images

# Bad documents.
printf 'packages: []\npakages: []\n' >"$TMP/bad.yaml"
refuse 1 'bad.yaml:2:1: unknown field "pakages" (did you mean "packages"?)' \
	wisp image build "$TMP/bad.yaml"
refuse 1 "No such file" wisp image build "$TMP/none.yaml"
refuse 2 "give an environment" wisp image build
refuse 1 "image name" wisp image build "$spec" -o ../x

# The first build may have to make the root; the second must not.
wisp image build "$spec" -o one
start=$(date +%s%N)
wisp image build "$spec" -o one 2>"$TMP/second"
took=$((($(date +%s%N) - start) / 1000000))
grep -q "up to date" "$TMP/second" || fail "the second build did not say up to date"
[ $took -lt 2000 ] || fail "the second build took $took ms"
for part in vmlinux vmlinuz initrd root.squashfs manifest.json; do
	[ -s "$folder/one/$part" ] || fail "no $part"
done
expect "list" "$(wisp image list --names)" one
wisp image verify one
wisp image show one | grep -q '^  busybox-static ' || fail "show lists no busybox-static"
wisp image list --json | python3 -c 'import json, sys
assert [i["name"] for i in json.load(sys.stdin)] == ["one"]'
wisp image show one --json | python3 -c 'import json, sys
m = json.load(sys.stdin)
assert m["format"] == 1 and m["parts"]["initrd"]["size"] > 0 and len(m["packages"]) > 20'
od -An -tx1 -N4 "$folder/one/vmlinux" | grep -q "7f 45 4c 46" || fail "vmlinux is no ELF"

# Without network: everything is in the cache.
unshare --map-root-user --net true 2>/dev/null && {
	unshare --map-root-user --net "$WISP_BUILD/src/cli/wisp" image build "$spec" -o offline
	wisp image verify offline
	wisp image remove offline
}

# The same input gives the same image.
wisp image build "$spec" -o two
cmp "$folder/one/initrd" "$folder/two/initrd" || fail "two initrds differ"
cmp "$folder/one/root.squashfs" "$folder/two/root.squashfs" || fail "two roots differ"

# One bit flipped: verify sees it, build repairs it.
python3 - "$folder/two/root.squashfs" <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(123456)
    byte = f.read(1)[0]
    f.seek(123456)
    f.write(bytes([byte ^ 8]))
PY
refuse 1 "root.squashfs is damaged" wisp image verify two
wisp image build "$spec" -o two
wisp image verify two
truncate -s -1 "$folder/two/initrd"
refuse 1 "initrd has" wisp image verify two

# Killed and interrupted half way: no half image, nothing left after the next build.
kill_build() {
	signal=$1
	wanted=$2
	TMPDIR=$TMP wisp image build --refresh "$spec" -o three 2>/dev/null &
	build=$!
	tries=0
	until ls "$TMP"/wisp-image-*/mmdebstrap.* >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || fail "the build does not start mmdebstrap"
		sleep 0.1
	done
	sleep 2
	kill -"$signal" $build
	code=0
	wait $build || code=$?
	expect "exit code after SIG$signal" $code "$wanted"
	refuse 1 "no image three" wisp image show three
	expect "images" "$(wisp image list --names | tr '\n' ' ')" "one two "
}
kill_build TERM 130
ls "$TMP"/wisp-image-* >/dev/null 2>&1 && fail "an interrupted build left its scratch folder"
kill_build KILL 137
wisp image build "$spec" -o three
ls "$TMP"/wisp-image-* >/dev/null 2>&1 && fail "a killed build's scratch folder is still there"
ls -d "$folder"/.tmp-* >/dev/null 2>&1 && fail "a temporary folder is still there"
wisp image verify one three

wisp image remove one two three
expect "list after remove" "$(wisp image list --names)" ""
refuse 1 "no image one" wisp image remove one
