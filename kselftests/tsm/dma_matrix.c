// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a TDI gets at, by each entry point of the DMA API: shared memory alone
 * while it is untrusted; private memory, and shared memory on request, when it
 * is trusted. The DMA is judged by the emulated platform, and the data is
 * compared.
 *
 * The same tests run in all hardware models; what may differ is in struct
 * model_rules.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "../kselftest_harness.h"
#include "tsm_test.h"

#define TWO_PAGES (2 * PAGE)
#define T_DRIVER TDI_TEST_T_DRIVER
#define T_0 TDI_TEST_T_0
#define T_1 TDI_TEST_T_1
#define CC_SHARED TDI_TEST_CC_SHARED
#define SHARED_MEMORY TDI_TEST_SHARED_MEMORY
#define DMA_DEBUG "/sys/kernel/debug/dma-api/"

/* The driver works and the platform judges, whatever else is missing */
MACHINE_FIXTURE(engine, 0)

TEST_F(engine, private_page_by_default)
{
	struct tdi_test_map map;
	struct tdi_test_dma dma;

	if (platform_shared_pages(&self->m) >= 0)
		SKIP(return, "memory is shared for DMA here: see untrusted");
	test_bind(self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	ASSERT_EQ(0, platform_announce(&self->m, self->t, ANY_REASON, 1));
	ASSERT_EQ(0, tdi_dma_at(self->t, TDI_TEST_READ, T_0, map.addr,
				TWO_PAGES, &dma));
	EXPECT_EQ(3, dma.status);
	EXPECT_EQ(PRIVATE_PAGE, dma.reason);
	EXPECT_EQ(0, dma.done);
	test_unmap(self->t, &map);
}

/* 14: each TDISP state with each trust level */
MACHINE_FIXTURE(matrix, NEED_ALL)

FIXTURE_VARIANT(matrix)
{
	enum tdi_state state;
	const char *trust;
};

#define MATRIX(st, level)                                                     \
	FIXTURE_VARIANT_ADD(matrix, st##_##level)                             \
	{                                                                     \
		.state = st, .trust = #level,                                 \
	}
#define MATRIX_STATE(st)                                                      \
	MATRIX(st, none);                                                     \
	MATRIX(st, adversary);                                                \
	MATRIX(st, auto);                                                     \
	MATRIX(st, tcb)

MATRIX_STATE(UNLOCKED);
MATRIX_STATE(LOCKED);
MATRIX_STATE(RUN);
MATRIX_STATE(ERROR);

TEST_F(matrix, private_only_for_run_and_tcb)
{
	bool private = variant->state == RUN && !strcmp(variant->trust, "tcb");
	struct tdi_test_map map;

	test_to(&self->m, self->t, variant->state, variant->trust);
	if (!strcmp(variant->trust, "none")) {
		EXPECT_EQ(-EPERM, tdi_bind(self->t));
		EXPECT_FALSE(tdi_is_bound(self->t));
		test_dma_enabled(0, &self->m, self->t);
		test_state((int)variant->state, &self->m, self->t);
		return;
	}

	test_bind(self->t);
	test_private(private, self->t);
	test_dma_enabled(private, &self->m, self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_target(&self->m, self->t, &map, 0, !private, !private);
	if (!private && variant->state != UNLOCKED &&
	    self->m.t0_blocked_locked) {
		test_err_dma(T0_LOCKED, &self->m, self->t, TDI_TEST_READ, T_0,
			     map.addr, PAGE);
	} else {
		test_roundtrip(self->t, &map, TWO_PAGES, T_DRIVER);
	}
	test_target(&self->m, self->t, &map, 0, !private, !private);
	test_unmap(self->t, &map);

	/* And it ends with the binding */
	test_unbind(self->t);
	test_dma_enabled(0, &self->m, self->t);
}

/* A TDI in UNLOCKED, trust level auto */
BOUND_FIXTURE(untrusted, NEED_ALL, UNLOCKED, "auto")

/* 15: bounced through shared memory, also a large mapping */
TEST_F(untrusted, untrusted_stream)
{
	const __u64 size = 32 * PAGE;
	struct tdi_test_map map;

	test_map(self->t, TDI_TEST_PHYS, 0, size, &map);
	test_target(&self->m, self->t, &map, 0, 1, true);
	test_roundtrip(self->t, &map, size, T_DRIVER);
	test_roundtrip(self->t, &map, size, T_0);
	test_unmap(self->t, &map);
}

/* Shared memory needs no bounce */
TEST_F(untrusted, untrusted_shared_attr)
{
	struct tdi_test_map map;

	test_map(self->t, TDI_TEST_PHYS, CC_SHARED | SHARED_MEMORY, TWO_PAGES,
		 &map);
	test_target(&self->m, self->t, &map, 1, 1, false);
	test_roundtrip(self->t, &map, TWO_PAGES, T_DRIVER);
	test_unmap(self->t, &map);
}

/* 16 */
TEST_F(untrusted, untrusted_to_private)
{
	struct tdi_test_resolve at;
	struct tdi_test_map map;
	char before[64], after[64];

	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	ASSERT_EQ(0, tdi_resolve(self->t, map.slot, 0, &at));
	memset(before, 0x77, sizeof(before));
	ASSERT_EQ(0, tdi_cpu_write(self->t, map.slot, 0, before, 64));
	test_err_dma(self->m.rules->t0_unmapped, &self->m, self->t,
		     TDI_TEST_READ, T_0, at.phys, PAGE);
	test_err_dma(self->m.rules->t0_unmapped, &self->m, self->t,
		     TDI_TEST_WRITE, T_0, at.phys, PAGE);
	ASSERT_EQ(0, tdi_cpu_read(self->t, map.slot, 0, after, 64));
	EXPECT_EQ(0, memcmp(before, after, sizeof(before)));
	test_unmap(self->t, &map);
}

/* 17: T=1 needs RUN and private DMA, whatever is mapped */
TEST_F(untrusted, t1_before_run)
{
	static const enum tdi_state states[] = { UNLOCKED, LOCKED, RUN };
	struct tdi_test_map map;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		ASSERT_EQ(0, tdi_reset(&self->m, self->t));
		test_to(&self->m, self->t, states[i], "auto");
		test_bind(self->t);
		test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
		test_err_dma(states[i] == RUN ? DMA_DISABLED : TDI_STATE,
			     &self->m, self->t, TDI_TEST_READ, T_1, map.addr,
			     PAGE);
		test_unmap(self->t, &map);
	}
}

/* A driver that must not bounce gets an error instead */
TEST_F(untrusted, no_bounce_no_map)
{
	test_err_map(&self->m, self->t, TDI_TEST_PHYS,
		     TDI_TEST_REQUIRE_COHERENT, TWO_PAGES);
	test_live(0, self->t);
}

/* 40: the same address, T=0: identity or a walk. The platform tells them apart. */
TEST_F(untrusted, model_diff)
{
	struct tdi_test_resolve at;
	struct tdi_test_dma dma;
	struct tdi_test_map map;
	char sent[PAGE];

	test_map(self->t, TDI_TEST_PHYS, CC_SHARED | SHARED_MEMORY, TWO_PAGES,
		 &map);
	memset(sent, 0x4b, sizeof(sent));
	ASSERT_EQ(0, tdi_cpu_write(self->t, map.slot, 0, sent, PAGE));
	ASSERT_EQ(0, tdi_resolve(self->t, map.slot, 0, &at));
	if (self->m.rules->t0_walks) {
		EXPECT_NE(at.phys, at.addr);
		test_err_dma(NOT_PRESENT, &self->m, self->t, TDI_TEST_READ, T_0,
			     at.phys, PAGE);
	} else {
		EXPECT_EQ(at.phys, at.addr);
		ASSERT_EQ(0, tdi_dma_at(self->t, TDI_TEST_READ, T_0, at.phys,
					PAGE, &dma));
		EXPECT_EQ(NONE, dma.reason);
		EXPECT_EQ(PAGE, dma.done);
		EXPECT_EQ(crc32_of(sent, PAGE), dma.crc);
	}
	test_unmap(self->t, &map);
}

/* A TDI in RUN, trust level tcb, so with private DMA */
BOUND_FIXTURE(trusted, NEED_ALL, RUN, "tcb")

/* 18 */
TEST_F(trusted, trusted_private)
{
	const __u64 size = 32 * PAGE;
	struct tdi_test_map map;

	test_map(self->t, TDI_TEST_PHYS, 0, size, &map);
	test_target(&self->m, self->t, &map, 0, 0, false);
	test_roundtrip(self->t, &map, size, T_DRIVER);
	test_roundtrip(self->t, &map, size, T_1);
	test_target(&self->m, self->t, &map, 0, 0, false);
	test_unmap(self->t, &map);
}

/* 19 */
TEST_F(trusted, trusted_shared_attr)
{
	struct tdi_test_resolve at;
	struct tdi_test_map map;

	SHARED_WINDOW_OR_SKIP(&self->m);
	test_map(self->t, TDI_TEST_PHYS, CC_SHARED | SHARED_MEMORY, TWO_PAGES,
		 &map);
	test_target(&self->m, self->t, &map, 1, 1, false);
	ASSERT_EQ(0, tdi_resolve(self->t, map.slot, 0, &at));
	if (self->m.model == MODEL_N) {
		EXPECT_EQ(at.phys + self->m.vtom, at.addr);
	}
	test_roundtrip(self->t, &map, TWO_PAGES, T_DRIVER);
	test_unmap(self->t, &map);
}

/* 19, where it cannot be: an error, and nothing mapped */
TEST_F(trusted, shared_attr_without_window)
{
	static const __u32 entries[] = { TDI_TEST_PHYS, TDI_TEST_PAGE,
					 TDI_TEST_SG, TDI_TEST_COHERENT,
					 TDI_TEST_NONCONTIGUOUS,
					 TDI_TEST_IOVA_LINK };
	unsigned int i;

	if (has_shared_window(&self->m))
		SKIP(return, "trusted devices reach shared memory in model %s",
		     self->m.rules->name);
	for (i = 0; i < ARRAY_SIZE(entries); i++)
		test_err_map(&self->m, self->t, entries[i],
			     CC_SHARED | SHARED_MEMORY, TWO_PAGES);
	test_live(0, self->t);
}

/* 20: whoever says shared about a private page gets a fault, not data */
TEST_F(trusted, shared_attr_on_private)
{
	struct tdi_test_map map;

	if (!has_shared_window(&self->m)) {
		test_err_map(&self->m, self->t, TDI_TEST_PHYS, CC_SHARED,
			     TWO_PAGES);
		test_live(0, self->t);
		return;
	}
	ASSERT_EQ(0, tdi_map(self->t, TDI_TEST_PHYS, CC_SHARED, TWO_PAGES, &map));
	if (map.slot == TDI_TEST_NO_SLOT) {
		test_live(0, self->t);
		return;
	}
	test_err_dma(self->m.rules->shared_attr_on_private, &self->m, self->t,
		     TDI_TEST_READ, T_1, map.addr, PAGE);
	test_err_dma(self->m.rules->shared_attr_on_private, &self->m, self->t,
		     TDI_TEST_WRITE, T_1, map.addr, PAGE);
	test_unmap(self->t, &map);
}

/* 21: and the other way round */
TEST_F(trusted, private_attr_on_shared)
{
	struct tdi_test_map map;

	ASSERT_EQ(0, tdi_map(self->t, TDI_TEST_PHYS, SHARED_MEMORY, TWO_PAGES,
			     &map));
	if (map.slot == TDI_TEST_NO_SLOT) {
		test_live(0, self->t);
		return;
	}
	test_err_dma(SHARED_PAGE, &self->m, self->t, TDI_TEST_READ, T_1,
		     map.addr, PAGE);
	test_err_dma(SHARED_PAGE, &self->m, self->t, TDI_TEST_WRITE, T_1,
		     map.addr, PAGE);
	test_unmap(self->t, &map);
}

/*
 * 46: private and shared mappings at the same time, data from one to the other.
 * Shared memory is reached with T=1, by the address of its mapping, and with T=0
 * by turns: by what T=0 makes of addresses, which are those of memory or walked.
 */
TEST_F(trusted, interleave)
{
	struct tdi_test_map private, shared;
	struct tdi_test_resolve at;
	struct tdi_test_dma dma;
	char sent[PAGE], seen[PAGE];
	int i;

	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &private);
	if (!has_shared_window(&self->m)) {
		test_err_map(&self->m, self->t, TDI_TEST_PHYS,
			     CC_SHARED | SHARED_MEMORY, TWO_PAGES);
		test_roundtrip(self->t, &private, TWO_PAGES, T_1);
		test_unmap(self->t, &private);
		return;
	}
	test_map(self->t, TDI_TEST_PHYS, CC_SHARED | SHARED_MEMORY, TWO_PAGES,
		 &shared);
	for (i = 0; i < 16; i++) {
		bool out = i % 2, t0 = i & 2 && !self->m.t0_blocked_locked;
		struct tdi_test_map *from = out ? &private : &shared;
		struct tdi_test_map *to = out ? &shared : &private;

		memset(sent, 0x10 + i, sizeof(sent));
		ASSERT_EQ(0, tdi_cpu_write(self->t, from->slot, PAGE, sent, PAGE));
		dma = (struct tdi_test_dma){
			.op = TDI_TEST_COPY,
			.slot = from->slot,
			.target_slot = to->slot,
			.iova = PAGE,
			.length = PAGE,
			.t = T_1,
			.target_t = T_1,
		};
		ASSERT_EQ(0, tdi_resolve(self->t, shared.slot, out ? 0 : PAGE,
					 &at));
		if (t0 && out) {
			dma.target_slot = TDI_TEST_NO_SLOT;
			dma.target = self->m.rules->t0_walks ? at.addr : at.phys;
			dma.target_t = T_0;
		} else if (t0) {
			dma.slot = TDI_TEST_NO_SLOT;
			dma.iova = self->m.rules->t0_walks ? at.addr : at.phys;
			dma.t = T_0;
		}
		ASSERT_EQ(0, tdi_dma(self->t, &dma));
		EXPECT_EQ(NONE, dma.reason);
		EXPECT_EQ(t0 && !out ? T_0 : T_1, (int)dma.t);
		EXPECT_EQ(t0 && out ? T_0 : T_1, (int)dma.target_t);
		ASSERT_EQ(0, tdi_cpu_read(self->t, to->slot, 0, seen, PAGE));
		EXPECT_EQ(0, memcmp(sent, seen, PAGE));
	}
	test_target(&self->m, self->t, &private, 0, 0, false);
	test_target(&self->m, self->t, &shared, 1, 1, false);
	test_unmap(self->t, &private);
	test_unmap(self->t, &shared);
}

/* 37: what is out of reach is bounced through private memory, or refused */
TEST_F(trusted, bounce_trusted)
{
	static const unsigned int masks[] = { 32, 30, 28, 24 };
	struct tdi_test_resolve at;
	unsigned int i, reached = 0, bounced = 0, missed = 0;
	struct tdi_test_map map;

	for (i = 0; i < ARRAY_SIZE(masks); i++) {
		if (ioctl(self->t->fd, TDI_TEST_SET_MASK, masks[i])) {
			missed++;
			continue;
		}
		ASSERT_EQ(0, tdi_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map));
		if (map.slot == TDI_TEST_NO_SLOT) {
			missed++;
			continue;
		}
		reached++;
		EXPECT_GE(1ULL << masks[i], map.addr + TWO_PAGES);
		ASSERT_EQ(0, tdi_resolve(self->t, map.slot, 0, &at));
		TH_LOG("mask %u: address %#llx, memory %#llx, target %#llx",
		       masks[i], map.addr, at.phys, at.target);
		EXPECT_EQ(0, platform_is_shared(&self->m, at.phys));
		EXPECT_EQ(0, platform_is_shared(&self->m, at.target));
		/* An IOMMU brings all memory within reach, a bounce what has to be */
		EXPECT_EQ(!self->m.rules->viommu &&
			  at.phys + TWO_PAGES > 1ULL << masks[i],
			  at.phys != at.target);
		bounced += at.phys != at.target;
		test_roundtrip(self->t, &map, TWO_PAGES, T_1);
		test_unmap(self->t, &map);
	}
	TH_LOG("%u reached, of these %u bounced, %u refused", reached, bounced,
	       missed);
	EXPECT_LT(0, reached);
	test_live(0, self->t);
}

/*
 * 38: to the BAR of a TDI. The platform has no peer-to-peer DMA: no data moves.
 * The page table says shared, which a trusted device cannot use in A, and which
 * nobody made it; what is private by its address is no RAM (N). An untrusted
 * device has bounce buffers or nothing in A and N.
 */
static void p2p_dma(struct __test_metadata *_metadata, struct machine *m,
		    struct tdi *t, __u32 flags, bool mapped, enum reason reason)
{
	__u32 how = T_DRIVER;
	struct tdi_test_map map;

	ASSERT_EQ(0, tdi_map(t, TDI_TEST_PHYS, flags, PAGE, &map));
	EXPECT_EQ(mapped, map.slot != TDI_TEST_NO_SLOT)
	{
		TH_LOG("flags %#x", flags);
	}
	if (map.slot == TDI_TEST_NO_SLOT)
		return;
	test_err_dma(reason, m, t, TDI_TEST_READ, how, map.addr, PAGE);
	test_err_dma(reason, m, t, TDI_TEST_WRITE, how, map.addr, PAGE);
	test_unmap(t, &map);
	test_live(0, t);
}

TEST_F(trusted, p2p_mmio)
{
	p2p_dma(_metadata, &self->m, self->t, TDI_TEST_MMIO, true,
		self->m.rules->p2p);
	p2p_dma(_metadata, &self->m, self->t, TDI_TEST_MMIO | CC_SHARED,
		has_shared_window(&self->m), PRIVATE_PAGE);
}

TEST_F(untrusted, p2p_mmio)
{
	p2p_dma(_metadata, &self->m, self->t, TDI_TEST_MMIO,
		self->m.rules->t0_walks, PRIVATE_PAGE);
	/* Who says that it is shared is believed by the kernel, not by the platform */
	p2p_dma(_metadata, &self->m, self->t, TDI_TEST_MMIO | CC_SHARED, true,
		PRIVATE_PAGE);
}

/* How many errors CONFIG_DMA_API_DEBUG has seen, or -1 if it does not look */
static long dma_debug_errors(void)
{
	char text[32];

	if (read_text(DMA_DEBUG "disabled", text, sizeof(text)) ||
	    text[0] != 'N' ||
	    read_text(DMA_DEBUG "error_count", text, sizeof(text)))
		return -1;
	return strtol(text, NULL, 0);
}

/* It counts what it finds, but says nothing: that would be a splat */
static int unmap_otherwise(struct tdi *t, __u32 slot, __u32 flags)
{
	char left[32];
	int rc;

	if (read_text(DMA_DEBUG "num_errors", left, sizeof(left)))
		return tdi_unmap_attrs(t, slot, flags);
	rc = write_text(DMA_DEBUG "driver_filter", "none");
	if (rc)
		return rc;
	rc = tdi_unmap_attrs(t, slot, flags);
	return write_text(DMA_DEBUG "driver_filter", "\n") ?:
	       write_text(DMA_DEBUG "num_errors", left) ?: rc;
}

/* 45: unmapped with another attribute than mapped, as drivers do by mistake */
TEST_F(trusted, heap_attr)
{
	struct tdi_test_map map;
	struct tdi_test_info info;
	long splats = kernel_splats();
	long mismatches, errors;
	int i;

	SHARED_WINDOW_OR_SKIP(&self->m);
	ASSERT_EQ(0, tdi_info(self->t, &info));
	if (info.flags & TDI_TEST_INFO_DMA_DEBUG &&
	    access(DMA_DEBUG "driver_filter", W_OK))
		SKIP(return, "CONFIG_DMA_API_DEBUG would report it, and there is no "
			     DMA_DEBUG);
	errors = dma_debug_errors();
	mismatches = tdi_mismatches(self->t);
	ASSERT_LE(0, mismatches);
	for (i = 0; i < 2; i++) {
		test_map(self->t, TDI_TEST_PHYS, i ? 0 : CC_SHARED | SHARED_MEMORY,
			 TWO_PAGES, &map);
		ASSERT_EQ(0, unmap_otherwise(self->t, map.slot,
					     i ? CC_SHARED : 0));
		test_live(0, self->t);
	}
	/* The address tells what it was in model N alone. There it is noticed */
	if (self->m.model == MODEL_N)
		mismatches += 2;
	EXPECT_EQ(mismatches, tdi_mismatches(self->t));
	if (errors >= 0) {
		EXPECT_EQ(errors + 2, dma_debug_errors());
	}

	/* What comes after is as good as ever */
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_roundtrip(self->t, &map, TWO_PAGES, T_1);
	test_unmap(self->t, &map);
	EXPECT_EQ(splats, kernel_splats());

	/* The count of a new device begins anew */
	EXPECT_EQ(0, tdi_remove(self->t));
	EXPECT_EQ(0, bus_rescan());
}

TEST_HARNESS_MAIN
