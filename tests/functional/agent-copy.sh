#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copies in and out of trees and large files; failures name their reason and leave nothing half.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agent-lib.sh"
agent_start

tree() {
	(cd "$1" && find . -printf '%P %y %m %T@ %l\n' | sort && find . -type f -exec sha256sum {} + | sort)
}

mkdir -p "$TMP/src/a/b/c" "$TMP/src/empty"
head -c 5000000 /dev/urandom >"$TMP/src/a/big"
: >"$TMP/src/a/b/none"
echo text >"$TMP/src/a/b/c/name with blanks
and a newline"
ln -s ../../elsewhere "$TMP/src/a/link"
ln -s a "$TMP/src/dirlink"
chmod 600 "$TMP/src/a/big"
chmod 750 "$TMP/src/a"
touch -d '2001-02-03 04:05:06.789' "$TMP/src/a/big" "$TMP/src/a/b"
i=0
while [ $i -lt 300 ]; do
	echo $i >"$TMP/src/a/file$i"
	i=$((i + 1))
done
tree "$TMP/src" >"$TMP/wanted"

agent cp-in "$TMP/src" "$TMP/in"
tree "$TMP/in" | cmp - "$TMP/wanted" || fail "the tree changed on its way in"
agent cp-out "$TMP/in" "$TMP/out"
tree "$TMP/out" | cmp - "$TMP/wanted" || fail "the tree changed on its way out"
mkdir "$TMP/dir"
agent cp-in "$TMP/src/a/big" "$TMP/dir"
cmp "$TMP/src/a/big" "$TMP/dir/big" || fail "into a directory"
(cd "$TMP/src" && agent cp-in . "$TMP/dir")
tree "$TMP/dir/src" | cmp - "$TMP/wanted" || fail "the tree . by its real name"

# 300 MiB: several times what any buffer holds.
head -c 314572800 /dev/urandom >"$TMP/large"
agent cp-in "$TMP/large" "$TMP/large.in"
cmp "$TMP/large" "$TMP/large.in" || fail "a large file"
agent cp-out "$TMP/large.in" "$TMP/large.out"
cmp "$TMP/large" "$TMP/large.out" || fail "a large file back"

refuse 255 "cannot enter $TMP/nosuch/" agent cp-in "$TMP/src" "$TMP/nosuch/x"
refuse 255 "cannot read $TMP/nosuch" agent cp-in "$TMP/nosuch" "$TMP/x"
refuse 255 "cannot read $TMP/nosuch" agent cp-out "$TMP/nosuch" "$TMP/x"
refuse 255 "name a destination" agent cp-out "$TMP/src/." "$TMP/dir"
if [ "$(id -u)" = 0 ]; then
	chmod 700 "$TMP"
	refuse 255 "Permission denied" agent cp-in /etc/passwd "$TMP/x" nobody
	mkdir -m 777 "$TMP/small"
	mount -t tmpfs -o size=1m none "$TMP/small" 2>/dev/null || skip "cannot mount a tmpfs"
	at_exit "umount '$TMP/small'"
	refuse 255 "No space left" agent cp-in "$TMP/large" "$TMP/small/x"
	expect "left after a full disk" "$(ls -A "$TMP/small")" ""
fi
