#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes a man page: puts the reference that a program prints of itself into a page's text.
# fill.sh PAGE.scd.in OUTPUT [PROGRAM ARGUMENT]
set -eu
reference=$(mktemp)
trap 'rm -f "$reference"' EXIT
page=$1 output=$2
shift 2
[ $# -eq 0 ] || "$@" >"$reference"
sed -e "/^@OPTIONS@\$/r $reference" -e '/^@OPTIONS@$/d' "$page" | scdoc >"$output"
