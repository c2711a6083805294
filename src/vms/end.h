/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_END_H
#define WISP_VMS_END_H

#include <jansson.h>

#define EXIT_REBOOT 10 /* of wisp-vmm */

/*
 * The end record of a VM for a wait status: {"reason", "code" or "signal", "time"}; said is the
 * last thing its VMM said or "". A new reference.
 */
json_t *end_describe(int status, const char *said);

/* The last line of the VMM's messages in the VM's directory: why it failed, if it did. The
 * caller's. */
char *end_last_words(const char *dir);

#endif
