/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_CALL_H
#define WISP_VMM_CALL_H

/*
 * What a command of the control socket works with. control.c has the sockets and the commands that
 * only look or press a button, control-state.c those of save and restore, control-disk.c those for
 * the disks, control-track.c those that live as long as the connection that asked for them,
 * control-describe.c what the VM is.
 */

#include <jansson.h>
#include <stdbool.h>

struct control;
struct error;
struct jsonline;
struct vm;

struct call {
	struct control *control;
	struct vm *vm;
	const void *owner; /* which connection it is */
	int fd;		   /* its socket */
	struct jsonline *line;
	const json_t *args;
	json_t *result;
	int pass; /* the answer carries this descriptor, -1: none; its owner's, or closed then */
	bool close_pass;
};

/*
 * A handler puts its result into the object and returns 0, or -errno with err. HAND_OVER: the
 * answer is sent and the connection is then the serial console's.
 */
#define HAND_OVER 1
typedef int control_fn(struct call *call, struct error *err);

control_fn cmd_memory, cmd_save, cmd_load;				 /* control-state.c */
control_fn cmd_disks, cmd_disk, cmd_disk_copy_start, cmd_disk_copy_stop; /* control-disk.c */
control_fn cmd_describe;						 /* control-describe.c */
control_fn cmd_dirty_start, cmd_dirty_collect, cmd_dirty_stop, cmd_dirty_keep, cmd_dirty_take;
control_fn cmd_userfault, cmd_userfault_stop, cmd_throttle; /* control-track.c */

/* Ends what belongs to a connection that is gone. */
void control_track_gone(struct vm *vm, const void *owner);
void control_disk_gone(struct vm *vm, const void *owner);

/* The descriptor that came with the request; what says what it is for. -EINVAL without one. */
int call_take_fd(struct call *call, const char *what, struct error *err);

/* What the vCPUs need of the host they are on: a new object, for "describe" and "save". */
json_t *call_cpu(struct vm *vm);

/* Puts what "memory" and "userfault" say of the VM into a result. Any thread. */
void call_memory(const struct vm *vm, json_t *result);
void call_faults(const struct vm *vm, json_t *result);

/* -EBUSY, with the way out, when the VM has a device whose state cannot leave this process. */
int call_check_stays(const struct vm *vm, struct error *err);

#endif
