/* SPDX-License-Identifier: Apache-2.0 */
/* Rules for the datagrams of VXLANs, by nft(8). */

#include "net/vxlan-guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"
#include "net/vxlan.h"

#define TABLE_MAX 256
#define AT_ONCE 1000 /* addresses that one command has */

/*
 * The kernel's VXLAN device takes a datagram from anybody, and learns from it where a VM is. Its
 * number is in the last four bytes but one of the header behind UDP's (RFC 7348, 5). On the way out
 * only a process's own datagrams have a user: those of the device have none here, as their frames
 * are of another namespace. Fragments are whole before the input hook.
 */
static const char rules[] = "table ip %1$s\n"
			    "delete table ip %1$s\n"
			    "table ip %1$s {\n"
			    " set nodes {\n"
			    "  type ipv4_addr\n"
			    " }\n"
			    " chain input {\n"
			    "  type filter hook input priority -10; policy accept;\n"
			    "  udp dport %3$u @th,96,24 %2$u ip saddr != @nodes drop\n"
			    " }\n"
			    " chain output {\n"
			    "  type filter hook output priority -10; policy accept;\n"
			    "  udp dport %3$u @th,96,24 %2$u meta skuid >= 0 drop\n"
			    " }\n"
			    "}\n";

/* Of the path's last part, which may have what nft takes in no name. */
static void name_table(const char *path, char ret[TABLE_MAX])
{
	const char *name = strrchr(path, '/');
	size_t n = 0;

	n += (size_t)snprintf(ret, TABLE_MAX, "wisp_");
	for (name = name ? name + 1 : path; *name && n + 3 < TABLE_MAX; name++)
		n += (size_t)snprintf(ret + n, TABLE_MAX - n, "%02x", (unsigned char)*name);
}

static int run(const char *text, struct error *err)
{
	const char *const argv[] = {"nft", text, NULL};
	int r = process_run(&(struct process){.argv = argv}, NULL, NULL, err);

	return r == -ENOENT ? error_set(err, r,
					"a network over several nodes takes nft (Debian's package "
					"nftables), which is not on this node")
			    : r;
}

int vxlan_guard_begin(const char *path, uint32_t vni, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	char table[TABLE_MAX];

	name_table(path, table);
	text = io_format(rules, table, vni, VXLAN_PORT);
	return text ? run(text, err) : error_set(err, -ENOMEM, "out of memory");
}

/* What is added first can be removed, whether it was there or not. */
static int change(const char *path, const uint32_t *nodes, size_t n, bool remove, struct error *err)
{
	struct args text = {0};
	char table[TABLE_MAX];
	int r;

	name_table(path, table);
	args_add(&text, "%s", "");
	for (unsigned pass = 0; pass < (remove ? 2 : 1); pass++) {
		args_extend(&text, "%s element ip %s nodes {", pass ? "delete" : "add", table);
		for (size_t i = 0; i < n; i++) {
			struct in_addr in = {htonl(nodes[i])};
			char address[INET_ADDRSTRLEN];

			args_extend(&text, "%s %s", i ? "," : "",
				    inet_ntop(AF_INET, &in, address, sizeof(address)));
		}
		args_extend(&text, " }\n");
	}
	r = text.failed ? error_set(err, -ENOMEM, "out of memory") : run(text.v[0], err);
	args_done(&text);
	return r;
}

static int change_all(const char *path, const uint32_t *nodes, size_t n, bool remove,
		      struct error *err)
{
	int r = 0;

	for (size_t i = 0; !r && i < n; i += AT_ONCE)
		r = change(path, nodes + i, n - i < AT_ONCE ? n - i : AT_ONCE, remove, err);
	return r;
}

int vxlan_guard_add(const char *path, const uint32_t *nodes, size_t n, struct error *err)
{
	return change_all(path, nodes, n, false, err);
}

int vxlan_guard_remove(const char *path, const uint32_t *nodes, size_t n, struct error *err)
{
	return change_all(path, nodes, n, true, err);
}

void vxlan_guard_end(const char *path)
{
	CLEANUP_FREE char *text = NULL;
	char table[TABLE_MAX];

	name_table(path, table);
	text = io_format("table ip %1$s\ndelete table ip %1$s\n", table);
	if (text)
		run(text, NULL);
}
