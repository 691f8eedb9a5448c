// SPDX-License-Identifier: GPL-2.0-only
/*
 * A TSM that comes and goes, whatever state its TDIs are in. What it had locked is
 * unlocked when it is gone, nothing can be locked after that, and a driver that had
 * private DMA keeps what it mapped until it unmaps it, to no use. See
 * tsm_gone_races.c for what happens at the same time.
 */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#include "../kselftest_harness.h"
#include "race.h"

#define TWO_PAGES (2 * PAGE)
#define LISTING 4096

FIXTURE(gone)
{
	struct machine m;
	struct tdi *t;
};

FIXTURE_SETUP(gone)
{
	GONE_SETUP();
}

GONE_TEARDOWN(gone)

/* What a TDI has in sysfs: names and modes, sorted */
static int list_files(const struct tdi *t, const char *dir, char *out,
		      size_t size)
{
	struct dirent **entries;
	char path[2 * TEXT_LEN];
	struct stat st;
	int n, i;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", t->bdf, dir);
	n = scandir(path, &entries, NULL, alphasort);
	if (n < 0)
		return -errno;
	for (i = 0; i < n; i++) {
		size_t at = strlen(out);

		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s/%.60s",
			 t->bdf, dir, entries[i]->d_name);
		if (!lstat(path, &st))
			snprintf(out + at, size - at, "%s%s %o\n", dir,
				 entries[i]->d_name, st.st_mode);
		free(entries[i]);
	}
	free(entries);
	return 0;
}

static int list_tdi(const struct tdi *t, char *out)
{
	*out = '\0';
	return list_files(t, "", out, LISTING) ?:
	       list_files(t, "tsm/", out, LISTING);
}

/* 2: the TDI after the TSM, or the TSM after the TDI: the same in sysfs */
TEST_F(gone, visible_tsm_order)
{
	static char tdi_last[LISTING], tsm_last[LISTING];
	int again;

	ASSERT_EQ(0, tdi_remove(self->t));
	EXPECT_FALSE(tdi_has(self->t, "tsm/lock"));
	ASSERT_EQ(0, bus_rescan());
	ASSERT_EQ(0, list_tdi(self->t, tdi_last));
	EXPECT_NE(NULL, strstr(tdi_last, "tsm/lock 100644\n"));
	EXPECT_NE(NULL, strstr(tdi_last, "tsm/accept 100644\n"));
	EXPECT_NE(NULL, strstr(tdi_last, "tsm/unlock 100200\n"));
	EXPECT_NE(NULL, strstr(tdi_last, "tsm/state 100444\n"));
	EXPECT_NE(NULL, strstr(tdi_last, "trust 100644\n"));

	/* Nobody to lock it: no attributes, also of one that comes now */
	ASSERT_EQ(0, tsm_go());
	for (again = 0; again < 2; again++) {
		EXPECT_FALSE(tdi_has(self->t, "tsm"));
		EXPECT_EQ(-ENOENT, tdi_lock(&self->m, self->t));
		test_state(UNLOCKED, &self->m, self->t);
		EXPECT_TRUE(tdi_has(self->t, "trust"));
		ASSERT_EQ(0, tdi_remove(self->t));
		ASSERT_EQ(0, bus_rescan());
	}
	EXPECT_FALSE(tdi_has(self->t, "tsm"));

	ASSERT_EQ(0, tsm_back(&self->m));
	ASSERT_EQ(0, list_tdi(self->t, tsm_last));
	EXPECT_STREQ(tdi_last, tsm_last);
	test_to(&self->m, self->t, RUN, "tcb");
}

/* Without a driver: unlocked from any state, and it can be locked anew */
TEST_F(gone, unregister_unlocks)
{
	static const enum tdi_state states[] = { LOCKED, RUN, ERROR };
	char name[32];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		test_to(&self->m, self->t, states[i], "tcb");
		ASSERT_EQ(0, tsm_go());
		test_state(UNLOCKED, &self->m, self->t);
		test_dma_enabled(0, &self->m, self->t);
		ASSERT_EQ(0, tsm_back(&self->m));
		ASSERT_EQ(0, tdi_read(self->t, "tsm/lock", name, sizeof(name)));
		EXPECT_STREQ("", name);
		test_err_quiet(-EINVAL, &self->m, self->t, tdi_accept(self->t));
		test_state(UNLOCKED, &self->m, self->t);
	}
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(1, self->t);
}

/* True if no mapping can be made by any of these */
static bool maps_refused(const struct tdi *t)
{
	static const __u32 entries[] = { TDI_TEST_PHYS, TDI_TEST_SG,
					 TDI_TEST_COHERENT, TDI_TEST_PAGES };
	struct tdi_test_map map;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(entries); i++)
		if (tdi_map(t, entries[i], 0, TWO_PAGES, &map) ||
		    map.slot != TDI_TEST_NO_SLOT)
			return false;
	return true;
}

/* Unload with a driver bound: one with private DMA, by tsm/accept or by probe() */
FIXTURE(bound)
{
	struct machine m;
	struct tdi *t;
};

FIXTURE_VARIANT(bound)
{
	bool attested;
};

FIXTURE_VARIANT_ADD(bound, accepted)
{
	.attested = false
};
FIXTURE_VARIANT_ADD(bound, attested)
{
	.attested = true
};

FIXTURE_SETUP(bound)
{
	GONE_SETUP();
	if (variant->attested) {
		ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
		ASSERT_EQ(0, probe_mode(&self->m, self->t,
					TDI_TEST_PROBE_ATTEST));
	} else {
		test_to(&self->m, self->t, RUN, "tcb");
	}
	test_bind(self->t);
	test_private(1, self->t);
	test_dma_enabled(1, &self->m, self->t);
}

GONE_TEARDOWN(bound)

/* No DMA any more: not of what is mapped, and nothing new can be mapped */
#define test_ended(m, t, map)                                                 \
	do {                                                                  \
		test_state(UNLOCKED, m, t);                                   \
		test_dma_enabled(0, m, t);                                    \
		test_private(1, t);                                           \
		test_err_dma(TDI_STATE, m, t, TDI_TEST_READ, TDI_TEST_T_1,    \
			     (map)->addr, PAGE);                              \
		test_err_dma(TDI_STATE, m, t, TDI_TEST_WRITE, TDI_TEST_T_1,   \
			     (map)->addr, PAGE);                              \
		EXPECT_TRUE(maps_refused(t));                                 \
	} while (0)

TEST_F(bound, unregister_bound)
{
	static const __u32 entries[] = { TDI_TEST_PHYS, TDI_TEST_SG,
					 TDI_TEST_COHERENT, TDI_TEST_POOL };
	struct tdi_test_map map[ARRAY_SIZE(entries)];
	long splats = kernel_splats();
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(entries); i++)
		test_map(self->t, entries[i], 0, 0, &map[i]);
	test_roundtrip(self->t, &map[0], TWO_PAGES, TDI_TEST_T_1);
	ASSERT_EQ(0, tsm_go());
	test_ended(&self->m, self->t, &map[0]);
	test_live((int)ARRAY_SIZE(entries), self->t);
	for (i = 0; i < ARRAY_SIZE(entries); i++)
		test_unmap(self->t, &map[i]);
	test_live(0, self->t);
	test_no_mismatch(self->t);
	EXPECT_TRUE(maps_refused(self->t));

	/* A TSM that comes back gives nothing to who is bound */
	ASSERT_EQ(0, tsm_back(&self->m));
	EXPECT_EQ(-EBUSY, tdi_lock(&self->m, self->t));
	test_state(UNLOCKED, &self->m, self->t);
	EXPECT_TRUE(maps_refused(self->t));
	test_unbind(self->t);
	EXPECT_EQ(splats, kernel_splats());
	test_usable(&self->m, self->t);
}

/* The driver goes after the TSM, and what it has mapped with it */
TEST_F(bound, unbind_after_unregister)
{
	struct tdi_test_map map;
	long splats = kernel_splats();

	test_map(self->t, TDI_TEST_MANAGED, 0, TWO_PAGES, &map);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	ASSERT_EQ(0, tsm_go());
	test_ended(&self->m, self->t, &map);
	test_unbind(self->t);

	/* Not trusted by anybody now: DMA with shared memory */
	ASSERT_EQ(0, probe_mode(&self->m, self->t, 0));
	test_bind(self->t);
	test_private(0, self->t);
	test_live(0, self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_target(&self->m, self->t, &map, 0, 1, true);
	test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);
	test_unmap(self->t, &map);
	EXPECT_EQ(splats, kernel_splats());
	ASSERT_EQ(0, tsm_back(&self->m));
	test_usable(&self->m, self->t);
}

/* Who had no private DMA does not notice */
TEST_F(gone, unregister_untrusted)
{
	static const enum tdi_state states[] = { UNLOCKED, RUN };
	struct tdi_test_map map, other;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		ASSERT_EQ(0, tdi_reset(&self->m, self->t));
		test_to(&self->m, self->t, states[i], "auto");
		test_bind(self->t);
		test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
		ASSERT_EQ(0, tsm_go());
		test_state(UNLOCKED, &self->m, self->t);
		test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);
		test_map(self->t, TDI_TEST_SG, 0, TWO_PAGES, &other);
		test_target(&self->m, self->t, &other, 0, 1, true);
		test_roundtrip(self->t, &other, TWO_PAGES, TDI_TEST_T_DRIVER);
		test_unmap(self->t, &other);
		test_unmap(self->t, &map);
		test_live(0, self->t);
		ASSERT_EQ(0, tsm_back(&self->m));
	}
}

/* Without a TSM nobody gets private DMA, whatever the trust level */
TEST_F(gone, no_tsm)
{
	struct tdi_test_probe probe;
	struct tdi_test_map map;

	ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
	ASSERT_EQ(0, tsm_go());
	ASSERT_EQ(0, tdi_trust(self->t, "tcb"));
	ASSERT_EQ(0, probe_mode(&self->m, self->t,
				TDI_TEST_PROBE_ATTEST | TDI_TEST_PROBE_IGNORE));
	test_bind(self->t);
	ASSERT_EQ(0, probe_result(&self->m, self->t, &probe));
	EXPECT_EQ(-ENXIO, probe.attest);
	EXPECT_EQ(0, probe.private_inside);
	test_private(0, self->t);
	test_state(UNLOCKED, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);
	test_unmap(self->t, &map);
}

TEST_HARNESS_MAIN
