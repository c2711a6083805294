/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_DAEMON_H
#define WISP_NODE_DAEMON_H

/*
 * The daemon of a node: who connects, what they may ask, and what it has promised them
 * (docs/formats/node.md). It never waits for a peer, and what it promised is in its database, so
 * it may be killed at any moment. For the thread of the loop. SIGPIPE has to be ignored.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "channel/greet.h"
#include "node/admit.h"
#include "node/alloc.h"
#include "node/helper-call.h"

struct acceptor;
struct asker;
struct cluster;
struct conn;
struct credentials;
struct dial;
struct launches;
struct log;
struct loop;
struct loop_source;
struct metrics;

#define DAEMON_GREETINGS 64u	/* at once, of this node; and of others */
#define DAEMON_OF_ONE_USER 128u /* connections; a quarter of the greetings, as of one address */
#define DAEMON_TREES 256u	/* parts in trees of clusters, of one user */

struct daemon_params {
	struct loop *loop;
	const struct log *log;
	const char *socket, *database; /* paths */
	const char *name;	       /* of the node */
	json_t *labels;		       /* a list of texts */
	struct admit admit;
	struct topology *topology; /* the daemon's when it was made */
	cpu_set_t host;		   /* CPUs that are kept for the host */
	const char *root;	   /* of /proc and /sys; "" for this machine */
	const char *cgroups;	   /* the folder above wisp.slice; NULL: none */
	const char *users;	   /* root's: the folder of users' run folders; NULL: their own */
	const char *networks;	   /* root's: the folder of networks; NULL: keepers make them */
	bool outside;		   /* clusters' networks may lead out of this node */
	struct {
		const char *parent;   /* interface that their VMs may be on; NULL: none */
		unsigned first, last; /* in these VLANs; 0: in none */
	} lan;
	const char *interrupts; /* the file of isolate_interrupts(); NULL: they are left alone */
	bool everybody;		/* may connect; else only the daemon's user and root */
	gid_t operators;	/* whose members may do all; -1: there are none */
	unsigned grace;		/* seconds */
	unsigned idle;		/* seconds that it stays for nobody; 0: for ever */
	const char *metrics;	/* where they are served (node/scrape.h); NULL: nowhere */
	const char *listen;	/* for other nodes, HOST[:PORT]; NULL: not at all */
	const char *launcher;	/* by which others are reached; NULL: TCP */
	const void *key;	/* of the cluster, or NULL */
	size_t nkey;
	struct credentials *credentials; /* MUNGE, or NULL */
};

struct daemon;
struct link;
struct peer;
struct reply;
struct scrape;
struct splice;
struct tree_session;
struct who_search;

/* Where peers come in. */
struct door {
	struct daemon *d;
	bool remote;
	int fd; /* the acceptor's */
	struct acceptor *acceptor;
	unsigned greetings;
};

#define WHO_KNOWN 64u

struct who_known {
	uid_t uid;
	bool is_operator;
	json_t *facts;	/* as in struct asker */
	uint64_t until; /* CLOCK_MONOTONIC, ns */
};

/*
 * Asks the part of the request's cluster to connect a stream of the part's connection. 0, *conn and
 * *stream, which is open; and then fn, once, not out of a call: what the part says (with an error
 * the stream has been ended). Or -errno.
 */
typedef void part_fn(void *arg, int code, const char *reason, json_t *answer);
typedef int part_connect_fn(struct daemon *d, const struct asker *who, const json_t *request,
			    part_fn *fn, void *arg, struct conn **conn, uint32_t *stream,
			    struct error *err);

struct daemon {
	struct daemon_params p;
	struct store *store;
	struct alloc alloc;
	struct door local, remote;
	struct loop_source *expiry, *accounts, *healths, *idling;
	struct greet_params greeting; /* what all have in common */
	struct launches *launches;    /* NULL: TCP */
	struct peer *peers;
	struct reply *replies; /* that are due */
	struct tree_session *trees;
	struct splice *splices;
	struct link *links;	       /* what `connect` is at */
	part_connect_fn *part_connect; /* a test's, or that of daemon-part.c */
	struct who_search *searches;
	struct who_known known[WHO_KNOWN]; /* users, as the user database has them */
	unsigned next_known;
	json_t *health;
	uint64_t idle_ns; /* since when nobody needs it; 0: somebody does */
	struct helper_calls helpers;
	struct scrape *scrape;
	struct cluster *clusters;	       /* node/daemon-cluster.h */
	struct loop_source *looking;	       /* whether VMs still run */
	json_t *suspects;		       /* those that did not the last time */
	unsigned unheard;		       /* troubles with peers, for the log */
	unsigned ungrouped, unmoved, uncooked; /* what the kernel does not have, likewise */
};

/*
 * Opens the database, takes up what an earlier daemon left, and listens. -EBUSY: another daemon
 * has this state. What params points to outlives it.
 */
int daemon_create(const struct daemon_params *params, struct daemon **ret, struct error *err);
/* Nothing that was promised ends with it. Accepts NULL. */
void daemon_destroy(struct daemon *d);

/* -------- between the files of the daemon -------- */

#define DAEMON_SESSION 129 /* LEASE_SESSION */

/* Who asks. */
struct asker {
	uid_t uid;
	/* Of a request, found out before it is done. */
	bool operator;
	json_t *facts; /* {"user", "groups"} by their names; NULL: nobody can tell, or has to */
	char session[DAEMON_SESSION];
};

/*
 * daemon-reply.c: an answer that is due. Whoever has it sends it, once, at once or later, also when
 * who asked has gone meanwhile, and when the daemon ends.
 */
typedef void reply_fn(const struct reply *reply, int code, const char *reason, json_t *value);

#define REPLIES_MAX 256u /* due to one asker */

struct reply {
	struct asker who;    /* who asked, as it was then */
	struct asker *asker; /* as it is now; NULL: it has gone, and what it wanted may be undone */
	struct conn *conn;   /* on which it asked; NULL: through the tree, or it has gone */
	json_int_t id;	     /* of the request */
	uint32_t place;	     /* of this node, in the tree by which it came */
	/* Private. */
	struct daemon *d;
	struct reply *next;
	reply_fn *fn; /* brings it to the asker */
	void *to;
};

/*
 * model: all but d, next and who. -EPROTO: the asker has a request of that id; -EBUSY: it has too
 * many; -ENOMEM. asker, conn and to live until replies_forget().
 */
int reply_create(struct daemon *d, const struct reply *model, struct reply **ret,
		 struct error *err);
/*
 * code 0: it is done, and value (NULL: nothing) is what there is to say; else -errno with the
 * reason, and value: members that say more. value stays the caller's. The reply is gone.
 */
void reply_send(struct reply *reply, int code, json_t *value, const struct error *err);
/* The asker goes: nobody hears the answers that it is due. */
void replies_forget(struct daemon *d, const struct asker *asker);

/*
 * daemon-request.c: does a request of anybody, wherever it came from, and sends the reply, once it
 * is known who asks.
 */
void daemon_request(struct daemon *d, struct reply *reply, const json_t *request);
void request_do(struct daemon *d, struct reply *reply, const json_t *request);

/* daemon-who.c: finds out who asks, and the facts of it where they are needed, then does it. */
void who_then_do(struct daemon *d, struct reply *reply, const json_t *request, bool facts);
void who_done(struct daemon *d);
/* Who asks becomes that user, whom root asks for. */
int user_may_be(struct asker *who, uid_t uid, struct error *err);

/*
 * What does one. At once: 0 and *ret: what there is to say (NULL: nothing), a new reference; or
 * -errno, and *ret: members that say more than the reason. Nothing has changed then. Or later: the
 * reply is the function's from then on, the request is not.
 */
typedef int request_now_fn(struct daemon *d, const struct asker *who, const json_t *request,
			   json_t **ret, struct error *err);
typedef void request_later_fn(struct daemon *d, struct reply *reply, const json_t *request);

/* daemon-reserve.c: requests that give and take resources, and their ends. */
request_now_fn daemon_reserve;
request_later_fn daemon_release, daemon_session;
/* Somebody is there with its session; nobody is any more. */
void daemon_keep(struct daemon *d, const struct asker *who);
void daemon_leave(struct daemon *d, const struct asker *who);
/* A secret that a session may have. */
int session_check(const char *secret, struct error *err);
/* Says something to all who are there with a session of the user. The event stays the caller's. */
void daemon_event(struct daemon *d, uid_t uid, const char *session, json_t *event);
/* What an earlier daemon promised. */
int daemon_recover(struct daemon *d, struct error *err);
/* Ends reservations whose time is over, and waits for the next. */
void daemon_expire(void *daemon);

/* daemon-door.c: sockets that others connect to. */
int doors_open(struct daemon *d, struct error *err);
void doors_done(struct daemon *d);
/* Somebody who was greeted is not any more. */
void door_greeted(struct door *door);
/* Whether that user may come in. */
int door_admits(const struct door *door, uid_t uid, struct error *err);

/* Who comes in. */
struct caller {
	bool has_uid; /* else the greeting will tell */
	uid_t uid;
	uint8_t address[16]; /* of another node, or the part of it that somebody has for himself */
	char name[80];	     /* for people */
};

/* daemon-peer.c: connections. */
/* Takes the descriptor. */
int peer_add(struct door *door, int fd, const struct caller *caller, struct error *err);
void peers_done(struct daemon *d);
/* Connections of a user by a door; who are being greeted of a user, or an address. */
unsigned peers_of(const struct door *door, uid_t uid);
unsigned peers_greeted(const struct daemon *d, const struct caller *caller);
/* Whether anybody is there with this session. */
bool peers_have(const struct daemon *d, const struct asker *who);
void peers_tell(struct daemon *d, const struct asker *who, json_t *event);

/* daemon-remote.c: calls another node (node/dial.h). */
int daemon_dial(struct daemon *d, const char *node,
		void (*fn)(void *arg, int code, const char *reason, struct conn *conn), void *arg,
		struct dial **ret, struct error *err);

/*
 * daemon-tree.c: parts in the trees of clusters. A join of who asks: 0, and the connection is the
 * tree's; or -errno.
 */
int trees_join(struct daemon *d, const struct asker *who, struct conn *conn, const json_t *join,
	       struct error *err);
void trees_done(struct daemon *d);
bool trees_have(const struct daemon *d, const struct asker *who);
void trees_tell(struct daemon *d, const struct asker *who, json_t *event);

/* daemon-network.c, daemon-forward.c: what is made of a cluster, and what its part does. */
request_later_fn daemon_network, daemon_forward;

/* daemon-life.c: VMs run, and have ended. */
request_now_fn daemon_vms;
int life_start(struct daemon *d, struct error *err);
int life_recover(struct daemon *d, struct error *err);

/* daemon-connect.c: streams to what VMs have. */
request_later_fn daemon_connect;
void connects_done(struct daemon *d);

/* daemon-watch.c: what is looked at from time to time. */
int watch_start(struct daemon *d, struct error *err);
/* The text for Prometheus, with the clusters that who asks may see (NULL: all); a new string. */
int watch_metrics(struct daemon *d, const struct asker *who, char **ret, struct error *err);

/* daemon-account.c: what VMs have used by now, into their records; what their VMMs count, soon. */
void accounts_refresh(struct daemon *d);
void usages_ask(struct daemon *d);
int account_metrics(struct daemon *d, const struct asker *who, struct metrics *m,
		    struct error *err);

/* daemon-tell.c: what the node says of itself. */
request_now_fn daemon_facts, daemon_list, daemon_account;

int64_t daemon_now(void); /* seconds since 1970 */

#endif
