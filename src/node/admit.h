/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_ADMIT_H
#define WISP_NODE_ADMIT_H

/*
 * What a user may have here: a request's documents met with this node's policy and what the node
 * knows by itself (docs/design/clusters.md, Admission). Any thread; it reads files and asks the
 * user database.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/digest.h"

struct error;

struct admit {
	const char *policy; /* folder of the site's documents; NULL: none */
	const char *keys;   /* of those that sign waivers and images */
	const char *type;   /* of the node; NULL: it has none */
};

/* What came of the documents of a `reserve`; the owner's, zeroed before. */
struct admitted {
	json_t *environment; /* closed */
	json_t *waivers;     /* that let it off a rule: [{"rule", "user", "until", "because"}] */
	json_t *conflicts;   /* -EBADE: a list of them, and nothing else is here */
	int64_t save_every;  /* seconds, when a rule of the policy asks for checkpoints; else 0 */
};

void admitted_done(struct admitted *admitted);

/*
 * user: {"user", "groups"}, by their names; NULL: the user database does not tell, -ENOENT.
 * -EINVAL: it is malformed, -EPERM: it says what only the node knows, -EACCES: a waiver does not
 * hold, or the image may not run, -ESTALE: another digest, -EBADE: documents conflict.
 */
int admit(const struct admit *a, const json_t *user, const json_t *request, int64_t now,
	  struct admitted *ret, struct error *err);

/* Whether so many of its VMs may be on one node, and whether this is such a node: 0 or -EPERM. */
int admit_count(const json_t *environment, size_t vms, struct error *err);
int admit_place(const struct admit *a, const json_t *environment, const json_t *labels,
		struct error *err);

/* The claim of the environment's VMs with these names (docs/formats/node.md, Claims), as JSON. */
int admit_claim(const json_t *environment, const char *cluster, const json_t *vms, json_t **ret,
		struct error *err);

/* Whether its network leads out of the node (network.isolated: no). */
bool admit_leads_out(const json_t *environment);

/* Whether its VMs are on the nodes' own network, and in which VLAN: 0 for none. */
bool admit_on_lan(const json_t *environment, unsigned *vlan);

/* Of all documents in the folder; of nothing for NULL. */
int admit_policy_digest(const char *folder, char ret[DIGEST_TEXT], struct error *err);

#endif
