/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_MODULES_H
#define WISP_IMAGE_MODULES_H

/*
 * Kernel modules: which files a set of module names needs, in the order to load them. The
 * needs come from the modules themselves (.modinfo), so no depmod has to have run.
 */

#include <stddef.h>
#include <stdint.h>

struct error;

#define MODULE_DEVICE 10 /* "1af4:105a" */

struct module {
	char *name;		    /* with "_" for "-" */
	char device[MODULE_DEVICE]; /* needed only where this PCI device is; "": always */
	uint8_t *data;		    /* the module itself, uncompressed */
	size_t size;
};

struct modules {
	struct module *list; /* in load order */
	unsigned n;
};

/*
 * Finds the named modules (NULL ends the list) and what they need below folder
 * (lib/modules/RELEASE) and reads them. Names that are built into the kernel are left out, and so
 * are names after a "?" that do not exist. "NAME@VENDOR:DEVICE" (four hexadecimal digits each) and
 * what only such names need is for machines with this PCI device. Returns 0, -ENOENT for a name
 * that does not exist, or -errno. Free with modules_done(). Any thread.
 */
int modules_load(const char *folder, const char *const *names, struct modules *ret,
		 struct error *err);
void modules_done(struct modules *modules);

/*
 * The value of the index'th "key=" in a module's .modinfo, or NULL. The string is inside the
 * module. Everything in it is checked.
 */
const char *module_info(const uint8_t *module, size_t size, const char *key, unsigned index);

#endif
