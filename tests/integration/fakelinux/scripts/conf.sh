#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# olddefconfig in small: the last value wins, a symbol with an unmet dependency is off.
# usage: conf.sh KCONFIG CONFIG
cat "$1" "$(dirname "$1")/lib/Kconfig" "$2" | awk '
	$1 == "config" { symbol = $2; order[++count] = symbol }
	$1 == "depends" { needs[symbol] = $3 }
	/^CONFIG_/ { name = $0; sub(/=.*/, "", name); value[substr(name, 8)] = substr($0, length(name) + 2) }
	/^# CONFIG_/ { value[substr($2, 8)] = "n" }
	function holds(s) { return value[s] == "y" && (!needs[s] || holds(needs[s])) }
	END {
		for (i = 1; i <= count; i++) {
			s = order[i]
			if (value[s] == "" || value[s] == "n" || (needs[s] && !holds(needs[s])))
				print "# CONFIG_" s " is not set"
			else
				print "CONFIG_" s "=" value[s]
		}
	}' > "$2.tmp" && mv "$2.tmp" "$2"
