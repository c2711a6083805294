#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp env: exit codes, waivers from signing to use, differences, help. What documents come to is
# in tests/env.
. "$(dirname "$0")/lib.sh"

cd "$TMP"
mkdir policy keys
cat >lu.yaml <<'Y'
name: lu
memory: 2G
checkpoint: {interval: off}
walltime: 2h
Y
sed s/2h/24h/ lu.yaml >long.yaml
cat >policy/site.yaml <<'Y'
rule: longjobs
match: {walltime: 12h..}
checkpoint: {interval: 1m..60m}
Y

# What is asked for in a wrong way.
refuse 2 "give documents" wisp env check
refuse 2 "unknown option --foo" wisp env merge --foo
refuse 2 "give NAME=VALUE" wisp env merge --policy policy --fact walltime lu.yaml
refuse 2 'there is no fact "wall"' wisp env merge --fact wall=1 lu.yaml
refuse 2 "walltime must be a duration" wisp env merge --fact walltime=long lu.yaml
refuse 2 "fact user: this is not UTF-8" wisp env merge --fact user="$(printf '\377')" lu.yaml
refuse 2 "is not a time like" wisp env waive longjobs --user root --until 2027-02-30 --key none --because x
refuse 2 "give two environments" wisp env diff lu.yaml
refuse 1 "No such file" wisp env check none.yaml
refuse 1 "cannot read this folder" wisp env check --policy none lu.yaml
refuse 1 "there is no field memori (did you mean memory?)" wisp env why memori lu.yaml
refuse 1 "there is no field memori (did you mean memory?)" wisp env fields memori

# What is not written is not said to be.
for how in "" --json --digest; do
	rc=0
	wisp env merge $how lu.yaml >/dev/full 2>full || rc=$?
	expect "a full disk $how" "$rc $(cat full)" "1 wisp env merge: cannot write to standard output: No space left on device"
done

# The same digest from the document and from what it comes to.
wisp env check --policy policy lu.yaml | grep -q good
wisp env check --policy policy | grep -q "1 document: good"
refuse 1 "long: off" wisp env check --policy policy long.yaml
wisp env merge --policy policy lu.yaml >closed.json 2>notes
grep -q "left out: rule longjobs" notes || fail "nothing is said of the rule: $(cat notes)"
digest=$(wisp env merge --digest lu.yaml)
expect digest "$(wisp env merge --digest closed.json)" "$digest"
expect "digest of the text" "$(tr -d '\n' <closed.json | sha256sum | cut -d' ' -f1)" "$digest"
wisp env diff lu.yaml closed.json
sed 's/2G/4G/' lu.yaml >other.yaml
refuse 1 "memory" wisp env diff lu.yaml other.yaml
wisp env diff --json lu.yaml other.yaml | grep -q '"memory"' || fail "diff --json"
wisp env why memory lu.yaml | grep -q "user .*lu.yaml:2:9: lu: 2G" || fail why
wisp env fields --json | python3 -c 'import json, sys
fields = {f["field"]: f for f in json.load(sys.stdin)}
assert fields["memory"]["default"] == "512M" and all(f["text"] and f["example"] for f in fields.values())'

# A rule, and a waiver of it: signed, used, of somebody else, with a key nobody trusts.
command -v openssl >/dev/null || skip "openssl is not installed"
openssl genpkey -algorithm ed25519 -out me.key 2>/dev/null
set -- --policy policy --keys keys --fact user=ann
refuse 1 "fix      checkpoint.interval: 1h, or a waiver of longjobs" wisp env merge "$@" long.yaml
refuse 2 "are needed" wisp env waive longjobs --user ann
refuse 2 "is over" wisp env waive longjobs --user ann --until 2001-01-01 --because x --key me.key
refuse 2 "is not a time" wisp env waive longjobs --user ann --until soon --because x --key me.key
refuse 1 "is no Ed25519 private key" \
	wisp env waive longjobs --user ann --until 2099-01-01 --because x --key lu.yaml
wisp env waive longjobs --user ann --until 2099-01-01 --because "a campaign" --key me.key -o let-off
refuse 1 "a key that is not in keys" wisp env merge "$@" --waiver let-off long.yaml
openssl pkey -in me.key -pubout -out keys/me.pub
wisp env merge "$@" --waiver let-off long.yaml 2>notes | grep -q '"interval":"off"' || fail "the waiver changes nothing"
grep -q "left out: rule longjobs .*a waiver" notes || fail "the use of a waiver is not told"
refuse 1 "let-off is for user ann" wisp env merge --policy policy --keys keys --fact user=bob \
	--waiver let-off long.yaml
