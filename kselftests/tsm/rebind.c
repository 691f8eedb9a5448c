// SPDX-License-Identifier: GPL-2.0-only
/*
 * To trusted DMA and back by unbinding and rebinding the driver, and never in
 * another way: what a driver was given under the old rules is of no use under
 * the new ones, and the rules do not change while it has it.
 */
#include <errno.h>

#include "../kselftest_harness.h"
#include "tsm_test.h"

#define TWO_PAGES (2 * PAGE)
#define CYCLES 5

BOUND_FIXTURE(untrusted, NEED_ALL, UNLOCKED, "auto")

/*
 * 25: map while DMA is untrusted, ask for trust, unmap. Without the refusal the
 * unmap would be that of an address which means something else by then.
 */
TEST_F(untrusted, seed_explosion)
{
	__u64 generation = platform_generation(&self->m, self->t);
	long splats = kernel_splats();
	struct tdi_test_map map;

	ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);

	EXPECT_EQ(-EBUSY, tdi_trust(self->t, "tcb"));
	EXPECT_EQ(-EBUSY, tdi_lock(&self->m, self->t));
	EXPECT_EQ(-EBUSY, tdi_accept(self->t));
	EXPECT_EQ(-EBUSY, ioctl(self->t->fd, TDI_TEST_ATTEST) ? -errno : 0);
	EXPECT_EQ(-EBUSY, ioctl(self->t->fd, TDI_TEST_FREEZE) ? -errno : 0);
	test_state(UNLOCKED, &self->m, self->t);
	EXPECT_EQ(generation, platform_generation(&self->m, self->t));
	test_dma_enabled(0, &self->m, self->t);
	test_private(0, self->t);

	test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);
	test_unmap(self->t, &map);
	test_live(0, self->t);
	test_no_mismatch(self->t);
	EXPECT_EQ(splats, kernel_splats());
}

/* The same with nothing mapped: a driver is bound, and that is enough */
TEST_F(untrusted, no_trust_in_flight)
{
	__u64 generation = platform_generation(&self->m, self->t);

	ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
	test_live(0, self->t);
	EXPECT_EQ(-EBUSY, tdi_trust(self->t, "tcb"));
	EXPECT_EQ(-EBUSY, tdi_lock(&self->m, self->t));
	test_err_attest(&self->m, self->t, generation);
}

/* 26 */
TEST_F(untrusted, rebind_t1)
{
	struct tdi_test_map old, new;

	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &old);
	test_roundtrip(self->t, &old, TWO_PAGES, TDI_TEST_T_DRIVER);
	test_unmap(self->t, &old);
	test_unbind(self->t);

	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(1, self->t);
	test_err_dma(self->m.rules->t1_stale, &self->m, self->t, TDI_TEST_READ,
		     TDI_TEST_T_1, old.addr, PAGE);

	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &new);
	test_target(&self->m, self->t, &new, 0, 0, false);
	if (self->m.rules->viommu) {
		struct tdi_test_resolve at;

		ASSERT_EQ(0, tdi_resolve(self->t, new.slot, 0, &at));
		EXPECT_NE(at.phys, at.addr);
	}
	test_roundtrip(self->t, &new, TWO_PAGES, TDI_TEST_T_1);
	test_unmap(self->t, &new);
}

/* Addresses that no mapping has, but that two of this binding had */
static void had_mapped(struct __test_metadata *_metadata, struct tdi *t,
		       struct tdi_test_map map[2])
{
	test_map(t, TDI_TEST_PHYS, 0, TWO_PAGES, &map[0]);
	test_map(t, TDI_TEST_PHYS, 0, TWO_PAGES, &map[1]);
	test_unmap(t, &map[0]);
	test_unmap(t, &map[1]);
}

/* An unmap by an address of another binding is told, and touches nothing */
static void stale_unmap(struct __test_metadata *_metadata, struct tdi *t,
			const struct tdi_test_map old[2])
{
	long mismatches = tdi_mismatches(t);
	struct tdi_test_map new;

	ASSERT_LE(0, mismatches);
	test_map(t, TDI_TEST_PHYS, 0, TWO_PAGES, &new);
	/* An IOMMU before and after may give one of them again */
	if (old[0].addr == new.addr)
		old++;
	ASSERT_EQ(0, tdi_unmap_addr(t, old->addr, TWO_PAGES));
	EXPECT_EQ(mismatches + 1, tdi_mismatches(t));
	test_live(1, t);
	test_roundtrip(t, &new, TWO_PAGES, TDI_TEST_T_DRIVER);
	test_unmap(t, &new);
	test_live(0, t);
	EXPECT_EQ(mismatches + 1, tdi_mismatches(t));
}

/* The explosion of 25 on a kernel that guards: up, and down again */
TEST_F(untrusted, unmap_after_rebind)
{
	long splats = kernel_splats();
	struct tdi_test_map old[2];

	if (!self->m.rules->viommu)
		SKIP(return, "trusted or not, addresses are those of memory in model %s",
		     self->m.rules->name);
	had_mapped(_metadata, self->t, old);
	test_unbind(self->t);
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(1, self->t);
	stale_unmap(_metadata, self->t, old);

	had_mapped(_metadata, self->t, old);
	test_unbind(self->t);
	ASSERT_EQ(0, tdi_unlock(&self->m, self->t));
	test_bind(self->t);
	test_private(0, self->t);
	stale_unmap(_metadata, self->t, old);
	EXPECT_EQ(splats, kernel_splats());

	/* The count of a new device begins anew */
	EXPECT_EQ(0, tdi_remove(self->t));
	EXPECT_EQ(0, bus_rescan());
}

/* Up and down again, each time with data */
TEST_F(untrusted, rebind_cycles)
{
	struct tdi_test_map map;
	int i;

	for (i = 0; i < CYCLES; i++) {
		bool trusted = i % 2 == 0;

		ASSERT_EQ(0, tdi_reset(&self->m, self->t));
		if (trusted)
			test_to(&self->m, self->t, RUN, "tcb");
		test_bind(self->t);
		test_private(trusted, self->t);
		test_dma_enabled(trusted, &self->m, self->t);
		test_map(self->t, TDI_TEST_SG, 0, 4 * PAGE, &map);
		test_target(&self->m, self->t, &map, 0, !trusted, !trusted);
		test_roundtrip(self->t, &map, 4 * PAGE, TDI_TEST_T_DRIVER);
		test_unmap(self->t, &map);
		test_live(0, self->t);
	}
}

/* One driver binding after the other has private DMA, and none in between */
TEST_F(untrusted, private_ends_with_binding)
{
	struct tdi_test_map map;
	int i;

	test_unbind(self->t);
	test_to(&self->m, self->t, RUN, "tcb");
	for (i = 0; i < CYCLES; i++) {
		test_bind(self->t);
		test_private(1, self->t);
		test_dma_enabled(1, &self->m, self->t);
		test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
		test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_1);
		/* The driver unmaps when it is unbound */
		test_unbind(self->t);
		test_dma_enabled(0, &self->m, self->t);
		if (platform_state(&self->m, self->t) == ERROR) {
			/* The PCI core cleared bus mastering on a locked TDI */
			EXPECT_TRUE(self->m.bme_clear_is_error);
			ASSERT_EQ(0, tdi_unlock(&self->m, self->t));
			test_to(&self->m, self->t, RUN, "tcb");
		}
	}
}

/* 41 */
TEST_F(untrusted, unlock_clears)
{
	struct tdi_test_map map;

	test_unbind(self->t);
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_1);
	test_unbind(self->t);
	ASSERT_EQ(0, tdi_unlock(&self->m, self->t));
	test_state(UNLOCKED, &self->m, self->t);

	/* The trust level is still tcb: it is not enough */
	test_bind(self->t);
	test_private(0, self->t);
	test_err_dma(TDI_STATE, &self->m, self->t, TDI_TEST_READ, TDI_TEST_T_1,
		     map.addr, PAGE);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_target(&self->m, self->t, &map, 0, 1, true);
	test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);
	test_unmap(self->t, &map);
}

/* A level below tcb in RUN: legal, and untrusted */
TEST_F(untrusted, trust_down)
{
	struct tdi_test_map map;

	test_unbind(self->t);
	test_to(&self->m, self->t, RUN, "tcb");
	ASSERT_EQ(0, tdi_trust(self->t, "adversary"));
	test_state(RUN, &self->m, self->t);
	test_bind(self->t);
	test_private(0, self->t);
	test_dma_enabled(0, &self->m, self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_target(&self->m, self->t, &map, 0, 1, true);
	test_err_dma(DMA_DISABLED, &self->m, self->t, TDI_TEST_READ,
		     TDI_TEST_T_1, map.addr, PAGE);
	test_unmap(self->t, &map);
}

MACHINE_FIXTURE(two, NEED_ALL | NEED_TWO)

/* The trust of one TDI is that of one TDI */
TEST_F(two, other_tdi_untrusted)
{
	struct tdi_test_map trusted, untrusted;
	struct tdi *other = &self->m.tdi[1];

	ASSERT_EQ(0, tdi_reset(&self->m, other));
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_bind(other);
	test_private(1, self->t);
	test_private(0, other);
	test_dma_enabled(0, &self->m, other);

	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &trusted);
	test_map(other, TDI_TEST_PHYS, 0, TWO_PAGES, &untrusted);
	test_target(&self->m, self->t, &trusted, 0, 0, false);
	test_target(&self->m, other, &untrusted, 0, 1, true);
	test_roundtrip(self->t, &trusted, TWO_PAGES, TDI_TEST_T_DRIVER);
	test_roundtrip(other, &untrusted, TWO_PAGES, TDI_TEST_T_DRIVER);
	test_err_dma(TDI_STATE, &self->m, other, TDI_TEST_READ, TDI_TEST_T_1,
		     trusted.addr, PAGE);
	test_unmap(other, &untrusted);
	test_unmap(self->t, &trusted);
	EXPECT_EQ(0, tdi_reset(&self->m, other));
}

TEST_HARNESS_MAIN
