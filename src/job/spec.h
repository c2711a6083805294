/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_SPEC_H
#define WISP_JOB_SPEC_H

/* What a coordinator is started with (docs/formats/job.md), checked. Any thread. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

/* Texts and values are those of the JSON. */
struct spec {
	json_t *json;
	const char *name, *socket, *digest, *subnet;
	const json_t *environment; /* closed */
	const json_t *documents, *waivers, *facts;
	const json_t
		*restore; /* {VM: {folder, epoch, digest}}: it goes on from a checkpoint; or NULL */
	const char *job;  /* that this is a checkpoint of; or NULL: a new one */
	const json_t *former;		   /* its cluster: {id, nodes, lost}; or NULL */
	size_t others;			   /* nodes at the end of the list that get no VM */
	const json_t *image;		   /* {name, digest} */
	const json_t *proof;		   /* that it is signed: {manifest, signature}; or NULL */
	const json_t *nodes;		   /* this node's first */
	const json_t *addresses;	   /* of the nodes, IPv4, in their order */
	const json_t *program, *variables; /* program: empty: none */
	const char *user, *directory;
	uint64_t used_ms; /* of the walltime, until the checkpoint that it goes on from */
	int64_t uid, gid; /* with user NULL: whose it is, made in the VMs as user_name */
	const char *user_name;
	bool self; /* this node may have VMs */
	bool label, detach;
	size_t vms;
	unsigned ready_s; /* until all VMs have to be ready */
};

/* Takes json. -EINVAL: something is missing, or makes no sense. */
int spec_read(json_t *json, struct spec *ret, struct error *err);
void spec_done(struct spec *spec);

#endif
