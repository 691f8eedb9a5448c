// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where the split between private and shared DMA comes from: the page tables of
 * the vIOMMU (models A and B), or vTOM without one (model N).
 */
#include <errno.h>

#include "../kselftest_harness.h"
#include "refused.h"
#include "tsm_test.h"

#define TWO_PAGES (2 * PAGE)
#define T_1 TDI_TEST_T_1
#define BIG (1ULL << 20)

/* Many times as long as unmaps wait in a flush queue */
#define FQ_TIMER_US 200000

MACHINE_FIXTURE(group, NEED_ALL | NEED_VIOMMU)

/* The type that the group has not */
static const char *other_type(const struct tdi *t)
{
	char type[32];

	if (tdi_read(t, "iommu_group/type", type, sizeof(type)))
		return NULL;
	return strcmp(type, "identity") ? "identity" : "DMA";
}

/* 33 */
TEST_F(group, group_type)
{
	struct tdi_test_map map;
	char before[32], after[32];
	const char *type;
	int i, rc;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, tdi_reset(&self->m, self->t));
		if (i)
			test_to(&self->m, self->t, RUN, "tcb");
		test_bind(self->t);
		type = other_type(self->t);
		ASSERT_NE(NULL, type);
		ASSERT_EQ(0, tdi_read(self->t, "iommu_group/type", before,
				      sizeof(before)));
		EXPECT_EQ(-EPERM, tdi_write(self->t, "iommu_group/type", type));
		ASSERT_EQ(0, tdi_read(self->t, "iommu_group/type", after,
				      sizeof(after)));
		EXPECT_STREQ(before, after);
		test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
		test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);
		test_unmap(self->t, &map);
		test_unbind(self->t);

		/*
		 * The IOMMU driver may refuse (-EINVAL), or not have that type of
		 * domain (-EOPNOTSUPP), but a driver that binds works.
		 */
		rc = tdi_write(self->t, "iommu_group/type", other_type(self->t));
		EXPECT_TRUE(!rc || rc == -EINVAL || rc == -EOPNOTSUPP)
		{
			TH_LOG("unbound: %d", rc);
		}
		if (platform_state(&self->m, self->t) == ERROR)
			continue;
		test_bind(self->t);
		test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
		test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);
		test_unmap(self->t, &map);
	}
}

/* Both TDIs are in one IOMMU group, to which drivers are bound by hand */
FIXTURE(shared)
{
	struct machine m;
	struct tdi *t;
};

FIXTURE_SETUP(shared)
{
	char other[2 * TEXT_LEN];

	MACHINE_SETUP(NEED_ALL | NEED_VIOMMU | NEED_TWO | NEED_ACCOUNTING);
	ASSERT_EQ(0, tdi_reset(&self->m, &self->m.tdi[1]));
	ASSERT_EQ(0, bus_autoprobe(false));
	ASSERT_EQ(0, tdi_share_group(self->m.tdi, self->m.n_tdis, true));
	snprintf(other, sizeof(other), "iommu_group/devices/%s",
		 self->m.tdi[1].bdf);
	EXPECT_TRUE(tdi_has(self->t, other));
}

FIXTURE_TEARDOWN(shared)
{
	if (!self->t)
		return;
	test_check(&self->m);
	EXPECT_EQ(0, tdi_reset(&self->m, self->t));
	EXPECT_EQ(0, tdi_share_group(self->m.tdi, self->m.n_tdis, false));
	EXPECT_EQ(0, bus_autoprobe(true));
	machine_close(&self->m);
}

/* What the other device of the group gets at would change with it */
TEST_F(shared, private_dma_refused)
{
	test_bind_refused(-EBUSY, &self->m, self->t);
}

TEST_F(shared, attest_refused)
{
	test_attest_refused(-EBUSY, &self->m, self->t);
}

/* Trusted. No flush queue, whatever the kernel's default is, and none is left */
FIXTURE(viommu)
{
	struct machine m;
	struct tdi *t;
};

FIXTURE_SETUP(viommu)
{
	MACHINE_SETUP(NEED_ALL | NEED_VIOMMU);
	ASSERT_EQ(0, tdi_flush_at_once(self->t));
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(1, self->t);
}

FIXTURE_TEARDOWN(viommu)
{
	if (!self->t)
		return;
	test_check(&self->m);
	EXPECT_EQ(0, tdi_reset(&self->m, self->t));
	EXPECT_EQ(0, tdi_flush_at_once(self->t));
	machine_close(&self->m);
}

/* Is an unmap flushed at once? With flush queues it takes a while */
static bool is_strict(const struct tdi *t)
{
	char type[32];

	return !tdi_read(t, "iommu_group/type", type, sizeof(type)) &&
	       !strcmp(type, "DMA");
}

/* What was unmapped is out of reach, also for the IOTLB */
TEST_F(viommu, unmap_is_flushed)
{
	struct tdi_test_map map;
	int i;

	ASSERT_TRUE(is_strict(self->t));
	for (i = 0; i < 4; i++) {
		test_map(self->t, i % 2 ? TDI_TEST_SG : TDI_TEST_PHYS, 0,
			 TWO_PAGES, &map);
		test_roundtrip(self->t, &map, TWO_PAGES, T_1);
		test_unmap(self->t, &map);
		test_err_dma(NOT_PRESENT, &self->m, self->t, TDI_TEST_READ, T_1,
			     map.addr, PAGE);
	}
}

/* 34: with queued flushes, a change of trust leaves nothing stale */
TEST_F(viommu, fq_stale)
{
	struct tdi_test_map map[8];
	int i;

	ASSERT_EQ(0, tdi_write(self->t, "iommu_group/type", "DMA-FQ"));
	ASSERT_FALSE(is_strict(self->t));
	for (i = 0; i < 8; i++) {
		test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map[i]);
		test_roundtrip(self->t, &map[i], TWO_PAGES, T_1);
	}
	for (i = 0; i < 8; i++)
		test_unmap(self->t, &map[i]);

	test_unbind(self->t);
	ASSERT_EQ(0, tdi_unlock(&self->m, self->t));
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(1, self->t);
	for (i = 0; i < 8; i++)
		test_err_dma(NOT_PRESENT, &self->m, self->t, TDI_TEST_READ, T_1,
			     map[i].addr, PAGE);
}

/*
 * 34: the flush that a queue's timer brings is lost, that of the change of trust
 * is another one. In model A the domain changes with it, which flushes anyway.
 */
TEST_F(viommu, fq_drained)
{
	struct tdi_test_map map;
	struct tdi_test_dma dma;

	if (!self->m.rules->t0_walks)
		SKIP(return, "the domain follows trust in model %s",
		     self->m.rules->name);
	ASSERT_EQ(0, tdi_write(self->t, "iommu_group/type", "DMA-FQ"));
	ASSERT_FALSE(is_strict(self->t));
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_roundtrip(self->t, &map, TWO_PAGES, T_1);
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_IOTLB_INVALIDATE,
				     INJECT_ERROR, RESULT_FAILED, 1000));
	test_unmap(self->t, &map);
	usleep(FQ_TIMER_US);
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_IOTLB_INVALIDATE,
				     INJECT_CLEAR, 0, 0));
	ASSERT_EQ(0, tdi_dma_at(self->t, TDI_TEST_READ, T_1, map.addr, PAGE,
				&dma));
	ASSERT_EQ(NONE, dma.reason);

	test_unbind(self->t);
	ASSERT_EQ(0, tdi_unlock(&self->m, self->t));
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(1, self->t);
	test_err_dma(NOT_PRESENT, &self->m, self->t, TDI_TEST_READ, T_1,
		     map.addr, PAGE);
}

/* Large enough for large pages in the table */
TEST_F(viommu, large)
{
	struct tdi_test_map map;

	test_map(self->t, TDI_TEST_PHYS, 0, BIG, &map);
	test_target(&self->m, self->t, &map, 0, 0, false);
	test_roundtrip(self->t, &map, BIG, T_1);
	test_unmap(self->t, &map);
	ASSERT_TRUE(is_strict(self->t));
	test_err_dma(NOT_PRESENT, &self->m, self->t, TDI_TEST_READ, T_1,
		     map.addr + BIG / 2, PAGE);
}

/* A read-only mapping is one: the IOMMU knows directions */
TEST_F(viommu, permission)
{
	struct tdi_test_map map = {
		.entry = TDI_TEST_PHYS,
		.size = TWO_PAGES,
		.dir = 1 /* DMA_TO_DEVICE */
	};
	char sent[PAGE], seen[PAGE];
	struct tdi_test_dma dma;

	memset(sent, 0x3c, sizeof(sent));
	ASSERT_EQ(0, ioctl(self->t->fd, TDI_TEST_MAP, &map));
	ASSERT_NE(TDI_TEST_NO_SLOT, map.slot);
	ASSERT_EQ(0, tdi_cpu_write(self->t, map.slot, 0, sent, PAGE));
	ASSERT_EQ(0, tdi_dma_at(self->t, TDI_TEST_READ, T_1, map.addr, PAGE,
				&dma));
	EXPECT_EQ(NONE, dma.reason);
	EXPECT_EQ(crc32_of(sent, PAGE), dma.crc);
	test_err_dma(PERMISSION, &self->m, self->t, TDI_TEST_WRITE, T_1,
		     map.addr, PAGE);
	ASSERT_EQ(0, tdi_cpu_read(self->t, map.slot, 0, seen, PAGE));
	EXPECT_EQ(0, memcmp(sent, seen, PAGE));
	test_unmap(self->t, &map);
}

BOUND_FIXTURE(vtom, NEED_ALL, RUN, "tcb")

#define MODEL_N_OR_SKIP(m)                                                    \
	do {                                                                  \
		if ((m)->model != MODEL_N)                                    \
			SKIP(return, "no vTOM in model %s", (m)->rules->name); \
	} while (0)

/* 35, with a split */
TEST_F(vtom, vtom_edges)
{
	struct tdi_test_resolve private_at, shared_at;
	struct tdi_test_map private, shared;
	struct tdi_test_dma dma;
	__u64 x = self->m.vtom;

	MODEL_N_OR_SKIP(&self->m);
	SHARED_WINDOW_OR_SKIP(&self->m);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &private);
	test_map(self->t, TDI_TEST_PHYS,
		 TDI_TEST_CC_SHARED | TDI_TEST_SHARED_MEMORY, TWO_PAGES,
		 &shared);
	ASSERT_EQ(0, tdi_resolve(self->t, private.slot, 0, &private_at));
	ASSERT_EQ(0, tdi_resolve(self->t, shared.slot, 0, &shared_at));
	EXPECT_EQ(private_at.phys, private.addr);
	EXPECT_EQ(x + shared_at.phys, shared.addr);
	EXPECT_GT(x, private.addr);

	/* Below: private. At it and above: shared, and nothing else */
	test_err_dma(OUTSIDE_RAM, &self->m, self->t, TDI_TEST_READ, T_1,
		     x - PAGE, PAGE);
	test_err_dma(PRIVATE_PAGE, &self->m, self->t, TDI_TEST_READ, T_1,
		     x + private_at.phys, PAGE);
	test_err_dma(SHARED_PAGE, &self->m, self->t, TDI_TEST_READ, T_1,
		     shared_at.phys, PAGE);
	test_err_dma(VTOM_STRADDLE, &self->m, self->t, TDI_TEST_READ, T_1,
		     x - PAGE, TWO_PAGES);
	ASSERT_EQ(0, tdi_dma_at(self->t, TDI_TEST_READ, T_1, shared.addr, PAGE,
				&dma));
	EXPECT_EQ(NONE, dma.reason);
	test_roundtrip(self->t, &private, TWO_PAGES, T_1);
	test_roundtrip(self->t, &shared, TWO_PAGES, T_1);
	test_unmap(self->t, &private);
	test_unmap(self->t, &shared);
}

/* 35, all ones: everything is private */
TEST_F(vtom, vtom_all_ones)
{
	struct tdi_test_info info;
	struct tdi_test_map map;

	MODEL_N_OR_SKIP(&self->m);
	if (self->m.vtom != ALL_ONES)
		SKIP(return, "vTOM is %#llx", self->m.vtom);
	ASSERT_EQ(0, tdi_info(self->t, &info));
	EXPECT_EQ(ALL_ONES, info.vtom);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_roundtrip(self->t, &map, TWO_PAGES, T_1);
	test_unmap(self->t, &map);
	test_err_map(&self->m, self->t, TDI_TEST_PHYS,
		     TDI_TEST_CC_SHARED | TDI_TEST_SHARED_MEMORY, TWO_PAGES);
	test_err_map(&self->m, self->t, TDI_TEST_COHERENT, TDI_TEST_CC_SHARED,
		     TWO_PAGES);
	test_live(0, self->t);
	test_err_dma(OUTSIDE_RAM, &self->m, self->t, TDI_TEST_READ, T_1,
		     1ULL << 46, PAGE);
}

/* 36: a device that cannot reach the shared window gets an error, no less */
TEST_F(vtom, narrow_mask)
{
	struct tdi_test_map map;

	MODEL_N_OR_SKIP(&self->m);
	SHARED_WINDOW_OR_SKIP(&self->m);
	if (self->m.vtom < 1ULL << 32)
		SKIP(return, "vTOM is below 4 GiB");
	ASSERT_EQ(0, ioctl(self->t->fd, TDI_TEST_SET_MASK, 32));
	test_err_map(&self->m, self->t, TDI_TEST_PHYS,
		     TDI_TEST_CC_SHARED | TDI_TEST_SHARED_MEMORY, TWO_PAGES);
	test_err_map(&self->m, self->t, TDI_TEST_SG,
		     TDI_TEST_CC_SHARED | TDI_TEST_SHARED_MEMORY, TWO_PAGES);
	test_err_map(&self->m, self->t, TDI_TEST_COHERENT, TDI_TEST_CC_SHARED,
		     TWO_PAGES);
	test_live(0, self->t);

	ASSERT_EQ(0, tdi_map(self->t, TDI_TEST_PHYS, TDI_TEST_DMA32, TWO_PAGES,
			     &map));
	if (map.slot != TDI_TEST_NO_SLOT) {
		test_target(&self->m, self->t, &map, 0, 0, false);
		test_roundtrip(self->t, &map, TWO_PAGES, T_1);
		test_unmap(self->t, &map);
	}
}

/* Past the end of the address space: no TLP at all */
TEST_F(vtom, iova_wrap)
{
	test_err_dma(IOVA_WRAP, &self->m, self->t, TDI_TEST_READ, T_1,
		     -PAGE, TWO_PAGES);
}

TEST_HARNESS_MAIN
