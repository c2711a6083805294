/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_DEVICES_H
#define WISP_VMM_DEVICES_H

/* The descriptions of the device kinds, each in its own file; devices.c lists them. */

struct device_desc;

extern const struct device_desc block_desc;   /* dev/block.c */
extern const struct device_desc net_desc;     /* dev/net.c */
extern const struct device_desc vsock_desc;   /* dev/vsock.c */
extern const struct device_desc rng_desc;     /* dev/rng.c */
extern const struct device_desc console_desc; /* dev/console.c */
extern const struct device_desc fs_desc;      /* dev/fs.c */
extern const struct device_desc vfio_desc;    /* dev/vfio.c */

#endif
