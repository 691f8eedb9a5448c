// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vTOM that the DMA API cannot work with: memory lies above it, which a trusted
 * device would get at through the shared half alone, or the shared half does not
 * fit into 64 bits. The device gets no private DMA, whoever asks.
 */
#include <errno.h>

#include "../kselftest_harness.h"
#include "refused.h"
#include "tsm_test.h"

/* The first address above all memory, or 0 */
static __u64 memory_end(void)
{
	FILE *file = fopen("/proc/iomem", "re");
	unsigned long long last, end = 0;
	char line[TEXT_LEN];

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (strstr(line, "System RAM") &&
		    sscanf(line, "%*x-%llx", &last) == 1)
			end = last + 1;
	fclose(file);
	return end;
}

FIXTURE(refused)
{
	struct machine m;
	struct tdi *t;
};

FIXTURE_SETUP(refused)
{
	__u64 end = memory_end();

	MACHINE_SETUP(NEED_ALL | NEED_ACCOUNTING);
	ASSERT_NE(0, end);
	if (self->m.model != MODEL_N || self->m.vtom == ALL_ONES)
		SKIP(return, "no split");
	if (self->m.vtom >= end && self->m.vtom <= 1ULL << 63)
		SKIP(return, "vTOM is %#llx, memory ends at %#llx",
		     self->m.vtom, end);
}

MACHINE_TEARDOWN(refused)

TEST_F(refused, at_bind)
{
	test_bind_refused(-ERANGE, &self->m, self->t);
}

TEST_F(refused, in_probe)
{
	test_attest_refused(-ERANGE, &self->m, self->t);
}

TEST_HARNESS_MAIN
