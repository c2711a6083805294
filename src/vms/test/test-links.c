/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links that are made, cut and undone, over a stand-in of the network device: which nodes get what
 * goes to all, and who is believed when it is heard.
 */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "net/keeper.h"
#include "net/link.h"
#include "net/vxlan.h"
#include "vms/links.h"
#include "vms/subnet.h"

/* -------- the device, and what the keeper has of it -------- */

struct net_keeper {
	struct loop *loop;
	struct log log;
	struct links *links;
	uint32_t device[8]; /* its peers */
	size_t n;
	bool there;
	int watch[2]; /* what is written to the second is heard */
	unsigned changes;
};

static struct net_keeper *world; /* the device's functions have no argument for it */

struct loop *net_keeper_loop(struct net_keeper *keeper)
{
	return keeper->loop;
}

const struct log *net_keeper_log(struct net_keeper *keeper)
{
	return &keeper->log;
}

int net_keeper_vxlan(struct net_keeper *keeper, const char *name, uint32_t vni, uint32_t local,
		     struct error *err)
{
	assert_false(keeper->there);
	keeper->there = true;
	keeper->n = 0;
	return 0;
}

int link_remove(const char *name, struct error *err)
{
	assert_true(world->there);
	world->there = false;
	world->n = 0;
	return 0;
}

static size_t find(uint32_t peer)
{
	size_t i = 0;

	while (i < world->n && world->device[i] != peer)
		i++;
	return i;
}

int vxlan_add_peer(const char *name, uint32_t peer, struct error *err)
{
	assert_true(world->there);
	assert_true(world->n < ARRAY_SIZE(world->device) && find(peer) == world->n);
	world->device[world->n++] = peer;
	return 0;
}

int vxlan_remove_peer(const char *name, uint32_t peer, struct error *err)
{
	size_t at = find(peer);

	assert_true(world->there && at < world->n);
	world->device[at] = world->device[--world->n];
	return 0;
}

int vxlan_watch(struct error *err)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, world->watch), 0);
	return world->watch[0];
}

int vxlan_heard(int watch, const char *name, uint32_t *ret)
{
	return read(watch, ret, sizeof(*ret)) == sizeof(*ret) ? 0 : -EAGAIN;
}

/* -------- tests -------- */

static void changed(void *arg)
{
	((struct net_keeper *)arg)->changes++;
}

static void start(struct net_keeper *k)
{
	*k = (struct net_keeper){.watch = {-1, -1}};
	world = k;
	log_init(&k->log, "test", STDERR_FILENO, LOG_ERROR);
	assert_int_equal(loop_create(&k->loop), 0);
	assert_int_equal(links_create(k, 1, changed, k, &k->links), 0);
}

static void end(struct net_keeper *k)
{
	links_destroy(k->links);
	assert_false(k->there);
	loop_destroy(k->loop);
	close(k->watch[1]);
}

static json_t *request_of(const char *peer)
{
	return json_pack("{ss,s[s]}", "local", "10.0.0.1", "peers", peer);
}

/* The number of peers that were new. */
static size_t join(struct net_keeper *k, const char *peer)
{
	json_t *request = request_of(peer), *answer = json_object();
	struct error err;
	size_t n;

	assert_int_equal(links_add(k->links, request, answer, &err), 0);
	n = json_array_size(json_object_get(answer, "added"));
	json_decref(request);
	json_decref(answer);
	return n;
}

static void drop(struct net_keeper *k, const char *peer, bool undone)
{
	json_t *request = peer ? request_of(peer) : json_object();
	struct error err;

	assert_int_equal(links_drop(k->links, request, undone, &err), 0);
	json_decref(request);
}

/* That node sends: is it a peer then? */
static bool hear(struct net_keeper *k, const char *node)
{
	uint32_t peer;

	assert_int_equal(subnet_parse_ipv4(node, &peer), 0);
	assert_int_equal(write(k->watch[1], &peer, sizeof(peer)), sizeof(peer));
	assert_true(loop_run_once(k->loop, 1000) >= 0);
	return find(peer) < k->n;
}

static void expect_nodes(struct net_keeper *k, size_t n)
{
	json_t *nodes = links_nodes(k->links);

	assert_int_equal(json_array_size(nodes), n);
	assert_int_equal(k->n, n ? n - 1 : 0);
	json_decref(nodes);
}

/* A link that is cut is for good, one that is undone as if it had never been. */
static void test_undone(void **state)
{
	struct net_keeper k;

	start(&k);
	assert_int_equal(join(&k, "10.0.0.2"), 1);
	assert_int_equal(join(&k, "10.0.0.3"), 1);
	assert_int_equal(join(&k, "10.0.0.4"), 1);
	expect_nodes(&k, 4);
	drop(&k, "10.0.0.3", false);
	drop(&k, "10.0.0.4", true);
	expect_nodes(&k, 2);
	assert_false(hear(&k, "10.0.0.3"));
	assert_true(hear(&k, "10.0.0.4"));
	expect_nodes(&k, 3);
	/* By name it comes back. */
	assert_int_equal(join(&k, "10.0.0.3"), 1);
	drop(&k, "10.0.0.3", true);
	assert_true(hear(&k, "10.0.0.3"));
	end(&k);
}

/* What was cut before stays cut when a link that was made since is undone. */
static void test_undone_later(void **state)
{
	struct net_keeper k;

	start(&k);
	join(&k, "10.0.0.2");
	join(&k, "10.0.0.3");
	drop(&k, "10.0.0.3", false);
	join(&k, "10.0.0.4");
	drop(&k, "10.0.0.4", true);
	assert_false(hear(&k, "10.0.0.3"));
	end(&k);
}

/* The last one takes the device along, whichever way; one that is not there does no harm. */
static void test_last(void **state)
{
	struct net_keeper k;

	for (unsigned undone = 0; undone < 2; undone++) {
		start(&k);
		join(&k, "10.0.0.2");
		assert_int_equal(join(&k, "10.0.0.2"), 0);
		drop(&k, "10.0.0.9", undone);
		expect_nodes(&k, 2);
		drop(&k, "10.0.0.2", undone);
		expect_nodes(&k, 0);
		assert_false(links_any(k.links));
		drop(&k, "10.0.0.2", undone);
		close(k.watch[1]);
		/* Within a moment, as a command does that is called again. */
		assert_int_equal(join(&k, "10.0.0.2"), 1);
		expect_nodes(&k, 2);
		assert_int_equal(hear(&k, "10.0.0.9"), undone);
		drop(&k, NULL, undone);
		expect_nodes(&k, 0);
		end(&k);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_undone),
		cmocka_unit_test(test_undone_later),
		cmocka_unit_test(test_last),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
