/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which devices the VMs of a claim get. Who asks for one address comes first, then who wants a
 * function of one device, then any of a kind: the choices of the first are among those of the next,
 * so nobody takes what only another could use.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "node/place.h"

static bool is_kind(const char *wanted)
{
	return strlen(wanted) == 9 && wanted[4] == ':';
}

static unsigned rank(const char *wanted)
{
	return is_kind(wanted) ? 2 : !strncmp(wanted, "vf:", 3);
}

/* Only what an administrator has set apart: a virtual function, or what vfio-pci drives. */
static bool may_be_given(const struct topo_device *d)
{
	return d->function_of[0] || !strcmp(d->driver, "vfio-pci");
}

bool place_device_matches(const struct topo_device *d, const char *wanted)
{
	char kind[24];

	if (!may_be_given(d))
		return false;
	if (!strncmp(wanted, "vf:", 3))
		return !strcmp(d->function_of, wanted + 3);
	if (!is_kind(wanted))
		return !strcmp(d->address, wanted);
	snprintf(kind, sizeof(kind), "%04x:%04x", d->vendor, d->device);
	return !d->functions && !strcasecmp(kind, wanted);
}

bool place_device_tied(const struct topo_device *a, const struct topo_device *b)
{
	return a == b || (a->group >= 0 && a->group == b->group) ||
	       !strcmp(a->function_of, b->address) || !strcmp(b->function_of, a->address);
}

static bool can_have(const struct topology *t, const int *owner, unsigned device, int vm)
{
	if (owner[device] != PLACE_FREE)
		return false;
	for (unsigned i = 0; i < t->ndevices; i++)
		if (owner[i] != PLACE_FREE && owner[i] != vm &&
		    place_device_tied(&t->devices[i], &t->devices[device]))
			return false;
	return true;
}

static bool give(const struct topology *t, int *owner, const char *wanted, int vm)
{
	for (unsigned i = 0; i < t->ndevices; i++)
		if (place_device_matches(&t->devices[i], wanted) && can_have(t, owner, i, vm)) {
			owner[i] = vm;
			return true;
		}
	return false;
}

int place_devices(const struct topology *t, const struct claim *claim, int *owner, unsigned *vm,
		  unsigned *wanted)
{
	for (unsigned r = 0; r < 3; r++)
		for (unsigned v = 0; v < claim->nvms; v++)
			for (unsigned d = 0; d < claim->vms[v].ndevices; d++) {
				const char *text = claim->vms[v].devices[d];

				if (rank(text) == r && !give(t, owner, text, v)) {
					*vm = v;
					*wanted = d;
					return -ENODEV;
				}
			}
	return 0;
}
