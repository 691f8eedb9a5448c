#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# gcc through ccache. Its depend mode knows a file by what gcc itself wrote down as dependencies
# (kbuild asks for them), and spares the preprocessor's run: a miss then costs what gcc costs. The
# dependencies do not tell of .incbin; so assembly, and C that has it, is left to the slower mode,
# where ccache finds .incbin in the preprocessed text and keeps nothing.
for source; do :; done
case $source in
*.c) grep -q '\.incbin' "$source" 2>/dev/null || export CCACHE_DEPEND=1 ;;
esac
exec ccache gcc "$@"
