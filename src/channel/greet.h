/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CHANNEL_GREET_H
#define WISP_CHANNEL_GREET_H

/*
 * The first words on a connection between programs and daemons, and TLS where they need it
 * (docs/formats/node.md, "Greeting"): who the other side is, and how that is known. On the reactor,
 * without waiting; for the thread of the loop. SIGPIPE has to be ignored.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct credentials;
struct error;
struct greet;
struct loop;
struct tls;

#define GREET_MS 10000u
#define GREET_FRAME_MAX 8192u /* bytes of a frame of somebody unknown */
#define GREET_NODE 256u	      /* a node's name with its NUL */

enum greet_way {
	GREET_LOCAL,	/* a UNIX socket: the kernel knows */
	GREET_LAUNCHED, /* pipes from a launcher: it knows */
	GREET_MUNGE,
	GREET_KEY,
	GREET_REMOTE, /* who is called: MUNGE or the key, as the caller likes */
};

struct greet_params {
	struct loop *loop;
	int in, out; /* the same for a socket */
	bool called; /* and the other side began */
	enum greet_way way;
	const char *self; /* the name of this node */
	const char *node; /* of that which is called, NULL: any, on local connections */
	struct credentials
		*credentials; /* for GREET_MUNGE and GREET_REMOTE, or NULL. Outlives it */
	uid_t daemon;	      /* who may decode the credential: the daemon's user */
	const void *key;      /* the cluster's, or NULL: copied */
	size_t nkey;
	unsigned timeout_ms; /* of all; 0: GREET_MS */
};

struct greet_peer {
	enum greet_way how;
	bool has_uid; /* of GREET_LOCAL, and of GREET_MUNGE */
	uid_t uid;
	char node[GREET_NODE]; /* as it says */
	struct tls *tls;       /* the caller's now, or NULL */
};

/*
 * code 0: the peer, whose descriptors go on; else -errno with the reason. -EACCES: it is not who
 * it has to be. Once, not out of a call; the greeting has gone then.
 */
typedef void greet_fn(void *arg, int code, const char *reason, const struct greet_peer *peer);

/* The descriptors stay the caller's, who closes them when it failed. Returns 0 or -errno. */
int greet_start(const struct greet_params *params, greet_fn *fn, void *arg, struct greet **ret,
		struct error *err);

/* Before it is done: nothing is told. Accepts NULL. */
void greet_cancel(struct greet *greet);

#endif
