/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_PATHS_H
#define WISP_LIB_PATHS_H

/*
 * Where Wisp keeps what: state of running things, images, and what can be made again.
 *
 *     run     $WISP_RUN, else as root /run/wisp, else /run/wisp/user/UID where root's wispd made
 *             it, else $XDG_RUNTIME_DIR/wisp, else /tmp/wisp-UID
 *     images  $WISP_HOME, else $XDG_DATA_HOME/wisp, else ~/.local/share/wisp; "images" in it
 *     stores  $WISP_STORE, folders separated by ":", then /var/lib/wisp/images: images of others
 *     cache   $WISP_CACHE, else $XDG_CACHE_HOME/wisp, else ~/.cache/wisp
 *     config  $WISP_CONFIG, else as root /etc/wisp, else $XDG_CONFIG_HOME/wisp, else ~/.config/wisp
 *
 * Relative values of those variables are refused. All functions return 0 and a new absolute
 * path in *ret that the caller frees, or -errno; they make the directories above the last
 * part (those of run are private to the user), never the last part itself. Any thread.
 */

#include <sys/types.h>

struct error;

/* RUN/kind/name; with name NULL RUN/kind, which is made. kind: "lab", "vm", "net". */
int paths_run(const char *kind, const char *name, char **ret, struct error *err);

/* IMAGES/name; with name NULL the folder of the images, which is made. */
int paths_image(const char *name, char **ret, struct error *err);

/*
 * The folders of images that others provide, the site's last, whether they are there or not: new
 * list of new strings that ends with NULL. Nothing is made.
 */
int paths_stores(char ***ret, struct error *err);

/* The file of that name beside the folder of the images. */
int paths_data(const char *name, char **ret, struct error *err);

/* CACHE/kind/name; with name NULL CACHE/kind, which is made. */
int paths_cache(const char *kind, const char *name, char **ret, struct error *err);

/* CONFIG/name. Makes nothing. */
int paths_config(const char *name, char **ret, struct error *err);

/*
 * The file of one of our programs ("wisp-agent", "wisp-vmm"): in $WISP_LIBEXECDIR, beside
 * this program, where the build put it, or where it is installed. -ENOENT names the places.
 */
int paths_program(const char *name, char **ret, struct error *err);

/*
 * A name of a VM, lab, network or image: letters, digits, ".", "_" and "-", at most 63, the
 * first a letter or digit. 0, or -EINVAL; what names the kind of thing in the error.
 */
int paths_check_name(const char *name, const char *what, struct error *err);

/*
 * By root: the run folder of a user (0700), in a folder of root's in which nobody else can put
 * anything in its place. Fine when it is there and the user's; -EEXIST when it is another's.
 */
int paths_give_run(const char *path, uid_t uid, gid_t gid, struct error *err);

#endif
