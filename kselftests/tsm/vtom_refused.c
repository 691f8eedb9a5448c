// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vTOM that the DMA API cannot work with: memory lies above it, which a trusted
 * device would get at through the shared half alone, or the shared half does not
 * fit into 64 bits. The device gets no private DMA, whoever asks.
 */
#include <errno.h>

#include "../kselftest_harness.h"
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
	struct tdi_test_probe p;
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
	test_to(&self->m, self->t, RUN, "tcb");
	ASSERT_EQ(0, probe_mode(&self->m, self->t, 0));
	test_err_quiet(-ERANGE, &self->m, self->t, tdi_bind(self->t));
	EXPECT_FALSE(tdi_is_bound(self->t));
	ASSERT_EQ(0, probe_result(&self->m, self->t, &self->p));
	EXPECT_EQ(0, self->p.probes);
	test_state(RUN, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);

	ASSERT_EQ(0, tdi_trust(self->t, "auto"));
	test_bind(self->t);
	test_untrusted_works(&self->m, self->t);
}

/* The driver goes on without it */
TEST_F(refused, in_probe)
{
	ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
	ASSERT_EQ(0, probe_mode(&self->m, self->t,
				TDI_TEST_PROBE_ATTEST | TDI_TEST_PROBE_IGNORE));
	test_bind(self->t);
	ASSERT_EQ(0, probe_result(&self->m, self->t, &self->p));
	EXPECT_EQ(-ERANGE, self->p.attest);
	EXPECT_EQ(0, self->p.private_inside);
	test_state(UNLOCKED, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);
	test_untrusted_works(&self->m, self->t);
}

TEST_HARNESS_MAIN
