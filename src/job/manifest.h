/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_MANIFEST_H
#define WISP_JOB_MANIFEST_H

/*
 * checkpoint-N.json, the manifest of a checkpoint of a whole job (docs/formats/job-checkpoint.md).
 * What was read is checked: names, bounds, and that no folder leads out of the job's. Any thread.
 */

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/digest.h"

struct error;

#define JOB_FORMAT 1
#define JOB_ID 33 /* 32 hexadecimal digits and a NUL */
#define JOB_MAX_VMS 65536u
#define JOB_MAX_TASKS 65536u
#define JOB_MAX_DOCUMENTS 64u

struct job_vm {
	const char *name, *address;
	const char *mac; /* or NULL */
	const char *node;
	const char *folder; /* of its epochs, relative to the job's */
	uint64_t epoch;
	const char *digest; /* "sha256:..." */
	uint64_t cut_at;    /* CLOCK_REALTIME, ns */
	uint64_t pause_ns;
};

/* A program, and how many bytes of output it had written. */
struct job_task {
	const char *vm, *id;
	uint64_t out, err;
};

struct job_manifest {
	uint64_t sequence; /* from 1 */
	char job[JOB_ID];
	uint64_t parent; /* 0: none */
	char parent_digest[DIGEST_TEXT];
	const char *cluster, *subnet;
	char environment_digest[DIGEST_TEXT];
	const json_t *environment; /* closed: an object */
	const json_t *documents;   /* [{"name", "text"}] */
	const struct job_vm *vm;
	size_t vms;
	const struct job_task *task;
	size_t tasks;
	const json_t *report; /* an object, or NULL */
	/* Set by reading and writing: */
	uint64_t skew_ns;
	char digest[DIGEST_TEXT];
	const char *created, *version;
	json_t *json; /* when it was read: all of it, which the pointers above point into */
};

/* A new id, random. */
int job_id_make(char ret[JOB_ID], struct error *err);

/* Parses and checks text; name is for errors. The caller frees *ret with job_manifest_done(). */
int job_manifest_parse(const char *text, size_t size, const char *name, struct job_manifest *ret,
		       struct error *err);

/* The same of checkpoint-SEQUENCE.json in the folder dir, called path. -ENOENT when there is none.
 */
int job_manifest_read(int dir, const char *path, uint64_t sequence, struct job_manifest *ret,
		      struct error *err);

/*
 * Writes it to the folder dir, whole and durable, or not at all; -EEXIST when it is there: nothing
 * is overwritten. Checked as when it is read. Fills in skew_ns and digest.
 */
int job_manifest_write(int dir, struct job_manifest *m, struct error *err);

/* Frees what reading made. */
void job_manifest_done(struct job_manifest *m);

#endif
