/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_TOPOLOGY_FILES_H
#define WISP_NODE_TOPOLOGY_FILES_H

/* The parts of a topology that are read from the files below its root. For topology.c alone. */

struct topology;

/* Fills the huge pages of its nodes. */
void topology_files_pages(struct topology *t);

/* Fills its devices, in place of what was there. 0 or -ENOMEM; then nothing has changed. */
int topology_files_devices(struct topology *t);

#endif
