#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The results of the KUnit suites of PCI/TSM and the DMA API, which ran while the kernel booted:
# what debugfs keeps of them, as subtests. A suite that the kernel was built without is skipped.
# Those of IO page tables are a module, which is loaded here: emulated they take minutes. The long
# cases random_map and map_table_to_oa are left out, and what no pattern tells from them.
set -u

results=${KUNIT_DIR:-/sys/kernel/debug/kunit}
suites=(device-trust dma_vtom tdisp-emu-page-states tdisp-emu-evidence)
suites+=(amdv1_fmt_test amdv1_iommu_test amdv1_mock_fmt_test amdv1_mock_iommu_test)

filter=/sys/module/kunit/parameters/filter_glob
if [ -z "${KUNIT_DIR:-}" ] && [ -w "$filter" ]; then
	# a newline would be part of it
	printf '%s' 'amdv1_*.test_[!r]??[!_]*' > "$filter"
	modprobe -q iommu_pt_kunit_test
fi

echo "TAP version 13"
found=()
for suite in "${suites[@]}"; do
	[ -r "$results/$suite/results" ] && found+=("$suite")
done
if [ "${#found[@]}" = 0 ]; then
	echo "1..0 # SKIP no suite of these in $results"
	exit 4
fi

echo "1..${#suites[@]}"
status=0
number=0
for suite in "${suites[@]}"; do
	number=$((number + 1))
	if [ ! -r "$results/$suite/results" ]; then
		echo "ok $number $suite # SKIP not built in"
		continue
	fi
	# the suite's own lines are indented, those around it are not
	grep '^    ' "$results/$suite/results"
	# "not ok" counts wherever it stands, and so does a result that is not there
	if grep -q '^ *not ok' "$results/$suite/results" ||
		! grep -q '^ok ' "$results/$suite/results"; then
		echo "not ok $number $suite"
		status=1
	else
		echo "ok $number $suite"
	fi
done
exit $status
