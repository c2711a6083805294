#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# base: image:NAME: packages, files and steps upon the root of another image; what is pinned, what
# is refused.
. "$(dirname "$0")/lib.sh"

export WISP_HOME="$TMP/home"
for tool in mmdebstrap sqfstar unsquashfs unshare; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
cp "$TOP/images/minimal.yaml" "$TMP/minimal.yaml"
wisp image build "$TMP/minimal.yaml" -o ground
digest=$(wisp image show ground --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["digest"])')
wisp image show ground | grep -q "^digest  *sha256:$digest\$" || fail "show tells no digest"

# The digest is that of the content: the same again under another name.
wisp image build "$TMP/minimal.yaml" -o twin
wisp image show twin | grep -q "sha256:$digest\$" || fail "two of the same content differ"

echo "it's data" >"$TMP/data"
cat >"$TMP/grown.yaml" <<'Y'
base: image:ground
packages: [less]
files: {/srv/data: {from: data}}
steps: ["cat /srv/data >/srv/said; less --version >/srv/less"]
Y
wisp image build "$TMP/grown.yaml"
wisp image verify grown
root=$WISP_HOME/images/grown/root.squashfs
expect said "$(unsquashfs -cat "$root" srv/said)" "it's data"
unsquashfs -cat "$root" srv/less | grep -q '^less [0-9]' || fail "less does not run"
wisp image show grown --json | python3 -c '
import json, sys
m = json.load(sys.stdin)
names = [p["name"] for p in m["packages"]]
assert "less" in names and "busybox-static" in names and len(names) == len(set(names))
assert m["environment"]["base"] == "image:ground@sha256:" + sys.argv[1], m["environment"]
assert m["base"]["digest"] == sys.argv[1] and m["base"]["release"]' "$digest"
wisp image build "$TMP/grown.yaml" 2>&1 | grep -q "up to date" || fail "the same was built again"

# A grown one is a base as well; without packages no network is needed.
printf 'base: "image:grown"\nsteps: ["test -s /srv/said; echo more >/srv/more"]\n' >"$TMP/tall.yaml"
if [ "$(id -u)" = 0 ] && unshare --net true 2>/dev/null; then
	unshare --net "$WISP_BUILD/src/cli/wisp" image build "$TMP/tall.yaml"
else
	wisp image build "$TMP/tall.yaml"
fi
expect more "$(unsquashfs -cat "$WISP_HOME/images/tall/root.squashfs" srv/more)" more

# Exactly that one, or none.
printf 'base: "image:ground@sha256:%s"\n' "$digest" >"$TMP/pinned.yaml"
wisp image build "$TMP/pinned.yaml"
printf 'base: "image:grown@sha256:%s"\n' "$digest" >"$TMP/other.yaml"
refuse 1 "base: image grown has the digest sha256:" wisp image build "$TMP/other.yaml"
printf 'base: image:none\n' >"$TMP/none.yaml"
refuse 1 "base: no image none" wisp image build "$TMP/none.yaml" -o x
printf 'base: image:ground\n' >"$TMP/ground.yaml"
refuse 1 "cannot be built of itself" wisp image build "$TMP/ground.yaml"

# A damaged base is none; one that changed makes another image.
wisp image build "$TMP/tall.yaml" -o twin
wisp image show twin | grep -q "sha256:$digest\$" && fail "another content has the same digest"
printf '\001' | dd of="$root" bs=1 seek=4321 conv=notrunc 2>/dev/null
refuse 1 "base: image grown: root.squashfs is damaged" wisp image build "$TMP/tall.yaml" -o again
wisp image list --names | grep -q again && fail "an image of a damaged base is there"
exit 0
