/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LAB_SSH_H
#define WISP_LAB_SSH_H

/*
 * ssh between the nodes of a lab, without a question: keys made for this lab alone, and a server in
 * each node.
 */

struct error;

/* The programs are there; or what to install. */
int ssh_check(struct error *err);

/*
 * Makes the keys in the lab's state directory. Returns a descriptor of the archive that
 * ssh_install_script takes from its standard input; it can be read again from its start.
 */
int ssh_make_keys(const char *dir, struct error *err);

/* For sh -c in a node. */
extern const char ssh_install_script[];

#endif
