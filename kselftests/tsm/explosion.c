// SPDX-License-Identifier: GPL-2.0-only
/*
 * The negative control: what happens if trust changes while a mapping is alive.
 *
 *   dma_addr1 = dma_map()		untrusted: an address of memory
 *   private DMA is switched on		the IOMMU translates now
 *   dma_addr2 = dma_map()		an IOVA
 *   dma_unmap(dma_addr1)		of an IOVA that was never mapped
 *
 * It needs a kernel that lets this happen: CONFIG_DMA_TRUST_UNGUARDED, and
 * dma_trust_unguarded=on on its command line. The test passes if it does go
 * wrong, and is no part of what other kernels are measured by.
 */
#include <errno.h>
#include <linux/tdi_test.h>
#include <stdio.h>

#include "../kselftest_harness.h"
#include "tsm_test.h"

#define TWO_PAGES (2 * PAGE)
#define MODE (TDI_TEST_PROBE_ATTEST | TDI_TEST_PROBE_MAP)

/* The first mapping that the driver made, in probe() */
#define FIRST_SLOT 0

FIXTURE(explosion)
{
	struct machine m;
	struct tdi *t;
	struct tdi_test_info info;
};

FIXTURE_SETUP(explosion)
{
	OPEN_MACHINE_OR_SKIP(&self->m, NEED_ALL | NEED_ACCOUNTING);
	if (self->m.model != MODEL_A)
		SKIP(return, "the translation changes with trust in model A only");
	self->t = &self->m.tdi[0];
	ASSERT_EQ(0, tdi_begin(&self->m, self->t));
	test_bind(self->t);
	ASSERT_EQ(0, tdi_info(self->t, &self->info));
	test_unbind(self->t);
	if (!(self->info.flags & TDI_TEST_INFO_UNGUARDED))
		SKIP(return, "trust cannot change in flight here: no dma_trust_unguarded=on");
	ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
}

FIXTURE_TEARDOWN(explosion)
{
	if (!self->t)
		return;
	EXPECT_EQ(0, tdi_reset(&self->m, self->t));
	machine_close(&self->m);
}

TEST_F(explosion, unmap_after_switch)
{
	struct tdi_test_resolve first, second;
	struct tdi_test_probe probe;
	struct tdi_test_map map;
	__s64 shared = platform_shared_pages(&self->m);
	long splats = kernel_splats();

	ASSERT_EQ(0, probe_mode(&self->m, self->t, MODE));
	ASSERT_EQ(0, tdi_bind(self->t));
	ASSERT_EQ(0, probe_result(&self->m, self->t, &probe));
	ASSERT_EQ(0, probe.attest)
	{
		TH_LOG("the switch was refused, so there is a guard");
	}
	ASSERT_EQ(0, tdi_open(self->t));
	test_private(1, self->t);
	test_live(1, self->t);

	/* dma_addr1 was an address of memory: now nothing is there */
	ASSERT_EQ(0, tdi_resolve(self->t, FIRST_SLOT, 0, &first));
	TH_LOG("dma_addr1 %#llx, of memory at %#llx", first.addr, first.phys);
	EXPECT_NE(first.phys, first.target);
	test_err_dma(NOT_PRESENT, &self->m, self->t, TDI_TEST_READ,
		     TDI_TEST_T_1, first.addr, PAGE);

	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	ASSERT_EQ(0, tdi_resolve(self->t, map.slot, 0, &second));
	TH_LOG("dma_addr2 %#llx, of memory at %#llx", second.addr, second.phys);
	EXPECT_NE(second.phys, second.addr);
	test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_1);
	test_unmap(self->t, &map);
	EXPECT_EQ(splats, kernel_splats());

	/* The unmap of an address that the IOMMU does not know */
	ASSERT_EQ(0, tdi_unmap(self->t, FIRST_SLOT));
	TH_LOG("%ld splats, shared pages before %lld, now %lld",
	       kernel_splats(), (long long)shared,
	       (long long)platform_shared_pages(&self->m));
	EXPECT_NE(splats, kernel_splats())
	{
		TH_LOG("no warning: nothing exploded");
	}
	test_check(&self->m);
}

TEST_HARNESS_MAIN
