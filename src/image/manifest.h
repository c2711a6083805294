/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_MANIFEST_H
#define WISP_IMAGE_MANIFEST_H

/* What the store and the builder agree on (docs/formats/image.md). */

#define MANIFEST_FORMAT 1
#define MANIFEST_MAX (64u << 20)
#define SIGNATURE_MAX 1024

/* File names of the parts, ended by NULL. */
extern const char *const image_parts[];

#endif
