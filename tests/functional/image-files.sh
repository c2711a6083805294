#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp image: files and shell steps of an environment are in the root; failures say where; the
# site's rules hold.
. "$(dirname "$0")/lib.sh"

export WISP_HOME="$TMP/home"
for tool in mmdebstrap sqfstar unsquashfs unshare; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
mkdir "$TMP/sub"
printf '#!/bin/sh\necho hello\n' >"$TMP/sub/hello"
chmod +x "$TMP/sub/hello"
echo "it's data" >"$TMP/data file"
cat >"$TMP/files.yaml" <<'Y'
name: with-files
packages: []
memory: 4G
files:
  /usr/local/bin/hello: {from: sub/hello}
  /srv/deep/data: {from: data file, mode: 0640}
steps:
  - echo "it's $(hello)" >/srv/said
  - |
    test -e /usr/share/doc/bash/copyright
    test ! -e /usr/share/doc/bash/README
compression: zstd
Y
wisp image build "$TMP/files.yaml"
root=$WISP_HOME/images/with-files/root.squashfs
expect "said" "$(unsquashfs -cat "$root" srv/said)" "it's hello"
expect "data" "$(unsquashfs -cat "$root" srv/deep/data)" "it's data"
unsquashfs -ll "$root" >"$TMP/list"
grep -q '^-rw-r----- root/root .* squashfs-root/srv/deep/data$' "$TMP/list" ||
	fail "mode or owner of data: $(grep data "$TMP/list")"
grep -q '^-rwxr-xr-x root/root .* squashfs-root/usr/local/bin/hello$' "$TMP/list" ||
	fail "mode or owner of hello"
grep -q '^drwxr-xr-x root/root .* squashfs-root$' "$TMP/list" || fail "mode or owner of /"
unsquashfs -s "$root" | grep -q 'Compression zstd' || fail "not zstd"

printf 'base: image:with-files\nsteps: ["echo to be seen in the log; exit 3"]\n' >"$TMP/fails.yaml"
refuse 1 "cannot make the root (log: " wisp image build "$TMP/fails.yaml"
log=$(sed 's/.*(log: \([^)]*\)).*/\1/' "$TMP/refuse.out" | tail -n 1)
grep -q "to be seen in the log" "$log" || fail "$log does not say what the step said"
printf 'base: image:with-files\npackages: [no-such-package-anywhere]\n' >"$TMP/unknown.yaml"
refuse 1 "Unable to locate package no-such-package-anywhere" wisp image build "$TMP/unknown.yaml"
printf 'files: {/x: {from: missing}}\n' >"$TMP/missing.yaml"
refuse 1 "missing: No such file" wisp image build "$TMP/missing.yaml"
printf 'modules: [no-such-module]\n' >"$TMP/module.yaml"
refuse 1 "no kernel module no-such-module" wisp image build "$TMP/module.yaml"
mkdir "$TMP/policy"
printf 'packages: {forbid: [gcc]}\nmodules: [no-such-module]\n' >"$TMP/policy/no-gcc.yaml"
printf 'packages: [gcc]\n' >"$TMP/gcc.yaml"
refuse 1 "gcc is asked for and not allowed" wisp image build --policy "$TMP/policy" "$TMP/gcc.yaml"
refuse 1 "no kernel module no-such-module" \
	wisp image build --policy "$TMP/policy" "$TMP/files.yaml" -o other
expect "images" "$(wisp image list --names)" with-files
