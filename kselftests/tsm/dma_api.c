// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each entry point of the DMA API, by a device that is untrusted, by a trusted
 * one, and by a trusted one that asks for shared memory: the same privacy for
 * all, page states that come back, and no change under a live mapping.
 */
#include <errno.h>

#include "../kselftest_harness.h"
#include "tsm_test.h"

#define T_DRIVER TDI_TEST_T_DRIVER
#define CC_SHARED TDI_TEST_CC_SHARED
#define SHARED_MEMORY TDI_TEST_SHARED_MEMORY

/* 22: each entry point, untrusted, trusted, and trusted with CC_SHARED */
FIXTURE(api_matrix)
{
	struct machine m;
	struct tdi *t;
	struct tdi_test_info info;
};

FIXTURE_VARIANT(api_matrix)
{
	__u32 entry;
	__u64 size;
	bool trusted;
	__u32 flags;
	bool allocates;
};

#define API(name, id, bytes, alloc, ...)                                      \
	FIXTURE_VARIANT_ADD(api_matrix, name##_untrusted)                     \
	{                                                                     \
		.entry = id, .size = bytes, .allocates = alloc                \
	};                                                                    \
	FIXTURE_VARIANT_ADD(api_matrix, name##_trusted)                       \
	{                                                                     \
		.entry = id, .size = bytes, .allocates = alloc,               \
		.trusted = true                                               \
	}
#define API_ATTRS(name, id, bytes, alloc, with)                               \
	API(name, id, bytes, alloc);                                          \
	FIXTURE_VARIANT_ADD(api_matrix, name##_shared)                        \
	{                                                                     \
		.entry = id, .size = bytes, .allocates = alloc,               \
		.trusted = true, .flags = with                                \
	}
#define STREAM (CC_SHARED | SHARED_MEMORY)

/* clang-format off */
API_ATTRS(phys, TDI_TEST_PHYS, 4 * PAGE, false, STREAM);
API_ATTRS(page, TDI_TEST_PAGE, 4 * PAGE, false, STREAM);
API_ATTRS(single, TDI_TEST_SINGLE, 4 * PAGE, false, STREAM);
API_ATTRS(sg, TDI_TEST_SG, 4 * PAGE, false, STREAM);
API_ATTRS(sgtable, TDI_TEST_SGTABLE, 4 * PAGE, false, STREAM);
API_ATTRS(coherent, TDI_TEST_COHERENT, 4 * PAGE, true, CC_SHARED);
API_ATTRS(managed, TDI_TEST_MANAGED, 4 * PAGE, true, CC_SHARED);
API(pages, TDI_TEST_PAGES, 4 * PAGE, true);
API_ATTRS(noncontiguous, TDI_TEST_NONCONTIGUOUS, 4 * PAGE, true, CC_SHARED);
API(pool, TDI_TEST_POOL, 1024, true);
API_ATTRS(iova_link, TDI_TEST_IOVA_LINK, 4 * PAGE, false, STREAM);
/* clang-format on */

FIXTURE_SETUP(api_matrix)
{
	OPEN_MACHINE_OR_SKIP(&self->m, NEED_ALL);
	if (variant->flags && !has_shared_window(&self->m))
		SKIP(return, "trusted devices reach no shared memory in model %s",
		     self->m.rules->name);
	self->t = &self->m.tdi[0];
	ASSERT_EQ(0, tdi_begin(&self->m, self->t));
	if (variant->trusted)
		test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(variant->trusted, self->t);
	ASSERT_EQ(0, tdi_info(self->t, &self->info));
}

MACHINE_TEARDOWN(api_matrix)

/* All DMA by the IOMMU where it walks for it, or none */
#define NEED_IOVA_API()                                                       \
	do {                                                                  \
		const struct model_rules *_rules = self->m.rules;             \
		ASSERT_EQ(_rules->viommu &&                                   \
			  (_rules->t0_walks || variant->trusted),             \
			  !!(self->info.flags & TDI_TEST_INFO_IOMMU_DMA));    \
		if (variant->entry == TDI_TEST_IOVA_LINK &&                   \
		    !(self->info.flags & TDI_TEST_INFO_IOMMU_DMA))            \
			SKIP(return, "no IOVA API: DMA without IOMMU");       \
	} while (0)

TEST_F(api_matrix, privacy)
{
	bool shared = !variant->trusted || variant->flags & CC_SHARED;
	bool bounced = !variant->trusted && !variant->allocates;
	bool cpu_shared = shared && !bounced;
	struct tdi_test_map map;

	NEED_IOVA_API();
	test_map(self->t, variant->entry, variant->flags, variant->size, &map);
	test_live(1, self->t);
	test_target(&self->m, self->t, &map, cpu_shared, shared, bounced);
	test_roundtrip(self->t, &map, variant->size, T_DRIVER);
	test_target(&self->m, self->t, &map, cpu_shared, shared, bounced);
	test_unmap(self->t, &map);
	test_live(0, self->t);
}

/* Allocated by the DMA API, and no pool's to keep */
#define IS_GIVEN_BACK(v) ((v)->allocates && (v)->entry != TDI_TEST_POOL)

/*
 * 23: after a first round, in which pools grow, page states come back: as many as
 * before, and what was allocated is private. (A pool may keep what it has.)
 */
TEST_F(api_matrix, rmp_balance)
{
	struct tdi_test_map maps[8];
	struct tdi_test_resolve at;
	__s64 before = 0, after = 0;
	int round, i;

	NEED_IOVA_API();
	for (round = 0; round < 2; round++) {
		before = platform_shared_pages(&self->m);
		ASSERT_LE(0, before);
		for (i = 0; i < 8; i++)
			test_map(self->t, variant->entry, variant->flags,
				 variant->size, &maps[i]);
		ASSERT_EQ(0, tdi_resolve(self->t, maps[7].slot, 0, &at));
		for (i = 0; i < 8; i++)
			test_unmap(self->t, &maps[i]);
		after = platform_shared_pages(&self->m);
		if (IS_GIVEN_BACK(variant)) {
			EXPECT_EQ(0, platform_is_shared(&self->m, at.target));
		}
	}
	EXPECT_EQ(before, after);
}

/* 24: no change of trust under a live mapping; it is freed as what it is */
TEST_F(api_matrix, free_after_flip)
{
	struct tdi_test_map map;
	struct tdi_test_resolve at;
	int shared;

	NEED_IOVA_API();
	test_map(self->t, variant->entry, variant->flags, variant->size, &map);
	ASSERT_EQ(0, tdi_resolve(self->t, map.slot, 0, &at));
	shared = platform_is_shared(&self->m, at.target);

	EXPECT_EQ(-EBUSY, tdi_trust(self->t, variant->trusted ? "auto" : "tcb"));
	EXPECT_EQ(-EBUSY, variant->trusted ? tdi_unlock(&self->m, self->t) :
					     tdi_lock(&self->m, self->t));
	EXPECT_EQ(-EBUSY, ioctl(self->t->fd, TDI_TEST_FREEZE) ? -errno : 0);

	test_dma_enabled(variant->trusted, &self->m, self->t);
	test_private(variant->trusted, self->t);
	EXPECT_EQ(shared, platform_is_shared(&self->m, at.target));
	test_roundtrip(self->t, &map, variant->size, T_DRIVER);
	test_unmap(self->t, &map);
	test_live(0, self->t);
	test_no_mismatch(self->t);
	if (IS_GIVEN_BACK(variant)) {
		EXPECT_EQ(0, platform_is_shared(&self->m, at.target));
	}
}

TEST_HARNESS_MAIN
