/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_RECORD_H
#define WISP_VMS_RECORD_H

/*
 * What is known of a VM, in its state directory RUN/vm/NAME (docs/design/vm-networks.md). Its
 * network's keeper writes the records and holds the directory's lock while the VM lives.
 */

#include <jansson.h>

struct error;

#define RECORD_CONFIG "vm.json"	  /* what it was started with, its address */
#define RECORD_READY "ready.json" /* its agent answers; boot times */
#define RECORD_END "end.json"	  /* why it ended */
/* Of hand-overs that are not settled, by wisp-mover: to another place, and to here. */
#define RECORD_SEND "send.record"
#define RECORD_RECEIVE "receive.record"
#define TOKEN_SEND "send.token" /* and what the two movers know each other by */
#define TOKEN_RECEIVE "receive.token"

/* Beside them: the sockets, what the guest printed, and what its VMM said. */
#define VM_CONTROL "control"
#define VM_VSOCK "vsock"
#define VM_CONSOLE "console"
#define VM_LOG "log"

/* An object in a new reference; -ENOENT when there is none. */
int record_read(const char *dir, const char *record, json_t **ret, struct error *err);

/* Replaces the record as a whole. */
int record_write(const char *dir, const char *record, const json_t *value, struct error *err);

/* The path of a file of the directory, a new string; NULL: no memory. */
char *record_path(const char *dir, const char *file);

/* Is there this file in the directory? */
int record_exists(const char *dir, const char *file);

/* The string of an object, or "". */
const char *record_text(const json_t *object, const char *key);

#endif
