/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_MIGRATE_NOTE_H
#define WISP_MOVER_MIGRATE_NOTE_H

/*
 * What a mover must not forget of a hand-over: a small file that is replaced as a whole and synced.
 * One thread.
 */

#include "mover/machine.h"
#include "mover/migrate-message.h"

struct error;

#define NOTE_CONTROL 4096

enum note_state {
	NOTE_PREPARED, /* target: complete, waits for COMMIT */
	NOTE_RUNNING,  /* target: COMMIT came */
	NOTE_ABORTED,  /* target: will never run */
	NOTE_GIVING,   /* source: COMMIT was never sent */
	NOTE_GIVEN,    /* source: COMMIT may have been sent */
	NOTE_GONE,     /* source: the target runs */
	NOTE_BACK,     /* source: it has stayed here, the target may not know */
	NOTE_STATES,
};

struct note {
	enum note_state state;
	bool rest; /* pages follow the VM (post-copy) and have not all come */
	bool told; /* target, aborted: the source has said that it knows */
	uint8_t session[SESSION_SIZE];
	uint8_t token[TOKEN_SIZE];
	char vm[MACHINE_NAME];	    /* which one it is about */
	char control[NOTE_CONTROL]; /* its control socket, absolute */
};

/* Whose hand-over it will be: names the VM behind the control socket (path, or NULL). */
int note_name(struct note *note, struct machine *vmm, const char *control, struct error *err);

/*
 * -ESTALE when the record is that of another VM. One that does not answer any more is known by its
 * control socket.
 */
int note_check(const struct note *note, struct machine *vmm, const char *control,
	       struct error *err);

/* The same where the VM has said its name already, another one. */
int note_stale(const struct note *note, struct error *err);

/* Mode 0600. Durable when it returns 0; else it is the old one, or the new one. */
int note_write(const char *path, const struct note *note, struct error *err);
/* -ENOENT: there is none; -EBADMSG: it is none. */
int note_read(const char *path, struct note *ret, struct error *err);

#endif
