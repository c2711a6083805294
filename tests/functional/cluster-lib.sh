# SPDX-License-Identifier: Apache-2.0
# For the tests of virtual clusters: . "$(dirname "$0")/cluster-lib.sh" after lib.sh. A lab of three
# nodes, each with root's wispd, which know each other by a key. $SHARED is a folder that all nodes
# and this machine see; the images in it are the site's.
. "$(dirname "$0")/lab-lib.sh"
[ "$(id -u)" = 0 ] || skip "must be root, as the daemons of nodes are"
SHARED=$WISP_BUILD/cluster-test.$$
at_exit 'rm -rf "$SHARED"'
CLUSTER_NODES=${CLUSTER_NODES:-3}
NODES=node1,node2@10.77.0.3,node3@10.77.0.4

# on NODE COMMAND...
on() {
	on_node=$1
	shift
	lab exec -n cluster -e WISP_STORE="$SHARED/images" "$on_node" -- env -u WISP_RUN -u WISP_HOME "$@"
}

# as USER NODE COMMAND...
as() {
	as_user=$1 as_node=$2
	shift 2
	on "$as_node" setpriv --reuid="$as_user" --regid="$as_user" --init-groups \
		env -u XDG_RUNTIME_DIR HOME="/home/$as_user" USER="$as_user" "$@"
}

# start_daemon N [OPTION...]: root's wispd at nodeN
start_daemon() {
	daemon_n=$1
	shift
	# shellcheck disable=SC2016
	on "node$daemon_n" sh -c 'name=$1 address=$2 wispd=$3 shared=$4
		shift 4
		WISP_STORE="$shared/images" setsid "$wispd" --name "$name" --listen "$address" --key "$shared/key" \
			--policy "$shared/policy.d" "$@" </dev/null >>"$shared/$name.log" 2>&1 &' \
		wispd "node$daemon_n" "10.77.0.$((daemon_n + 1))" "$WISP_BUILD/src/node/wispd" "$SHARED" "$@"
}

# cluster_image YAML NAME: builds it here and puts it where all nodes find it
cluster_image() {
	wisp image build -q "$1" -o "$2"
	cluster_folder=$(wisp image show "$2" --json | python3 -c 'import json, sys
print(json.load(sys.stdin)["folder"])')
	mkdir -p "$SHARED/images"
	cp -al "$cluster_folder" "$SHARED/images/$2" 2>/dev/null || cp -a "$cluster_folder" "$SHARED/images/$2"
}

# start_cluster_lab USER...: with these ordinary users at all nodes
start_cluster_lab() {
	mkdir -p "$SHARED/policy.d" "$SHARED/images"
	chmod 755 "$SHARED"
	head -c 64 /dev/urandom >"$SHARED/key"
	chmod 600 "$SHARED/key"
	lab up -n cluster --nodes "$CLUSTER_NODES" --memory "${CLUSTER_MEMORY:-3G}" --share "$SHARED" ${CLUSTER_NVME:+--nvme}
	for cluster_i in $(seq "$CLUSTER_NODES"); do
		for cluster_user in "$@"; do
			on "node$cluster_i" useradd -m "$cluster_user"
		done
		start_daemon "$cluster_i"
	done
	for cluster_i in $(seq "$CLUSTER_NODES"); do
		wait_for 60 daemon_answers "$cluster_i" || {
			cat "$SHARED/node$cluster_i.log" >&2
			fail "no wispd at node$cluster_i"
		}
	done
}

daemon_answers() {
	on "node$1" wisp node list >/dev/null 2>&1
}

# What daemons and coordinators said.
at_failure=cluster_logs
cluster_logs() {
	for cluster_log in "$SHARED"/*.log; do
		echo "$cluster_log ends:"
		tail -n 30 "$cluster_log"
	done
}
