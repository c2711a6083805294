/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_SOURCES_H
#define WISP_IMAGE_SOURCES_H

/* The APT sources of this machine, so that no mirror is named anywhere else. Any thread. */

struct error;

/* VERSION_CODENAME of /etc/os-release: new string in *ret, or -errno. */
int sources_release(char **ret, struct error *err);

/*
 * Writes FOLDER/apt.list and FOLDER/apt.sources from /etc/apt below root ("" for this
 * machine), with to in place of the release from. 0 and the paths of those that are not
 * empty (the caller frees them, NULL otherwise), or -ENOENT when there are no sources.
 */
int sources_write(const char *root, const char *folder, const char *from, const char *to,
		  char **ret_list, char **ret_sources, struct error *err);

#endif
