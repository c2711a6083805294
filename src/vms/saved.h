/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_SAVED_H
#define WISP_VMS_SAVED_H

/* What a folder of checkpoints says of the VM that was saved there. Any thread; blocks. */

#include <jansson.h>
#include <stdint.h>

struct error;

/*
 * Of the epoch *at, or of the newest (0), which *at becomes then: *config, the VM's vm.json (NULL:
 * not wanted), and *files, those of its manifest; new references. -ENOENT: no checkpoint;
 * -EBADMSG: not of a VM that wisp started.
 */
int saved_read(const char *dir, uint64_t *at, json_t **config, json_t **files, struct error *err);

#endif
