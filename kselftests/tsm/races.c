// SPDX-License-Identifier: GPL-2.0-only
/*
 * Races about one TDI: locking, binding, removing, mapping and trusting it, and
 * its falling to ERROR. See lib/race.h; those with a TSM that goes are in
 * tsm_gone_races.c, those with a DOE exchange in doe.c.
 */
#include <errno.h>

#include "../kselftest_harness.h"
#include "race.h"

#define TWO_PAGES (2 * PAGE)

/* To a flush queue, also while bound, and back; one that it has already is no change */
static int step_group_type(struct side *s)
{
	int queued = tdi_write(s->t, "iommu_group/type", "DMA-FQ");

	return tdi_write(s->t, "iommu_group/type", "DMA") ?: queued;
}

static int step_shared_memory(struct side *s)
{
	struct tdi_test_map map;
	int rc = tdi_map(s->t, TDI_TEST_PHYS,
			 TDI_TEST_CC_SHARED | TDI_TEST_SHARED_MEMORY, TWO_PAGES,
			 &map);

	if (rc)
		return rc;
	if (map.slot == TDI_TEST_NO_SLOT)
		return -ENOMEM;
	return tdi_unmap(s->t, map.slot);
}

static int step_freeze(struct side *s)
{
	return ioctl(s->t->fd, TDI_TEST_FREEZE) ? -errno : 0;
}

static int step_roundtrip(struct side *s)
{
	struct tdi_test_map map;
	char why[TEXT_LEN];
	int rc = tdi_map(s->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);

	if (rc)
		return rc;
	if (map.slot == TDI_TEST_NO_SLOT)
		return -ENOMEM;
	rc = tdi_roundtrip(s->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER, why,
			   sizeof(why));
	return tdi_unmap(s->t, map.slot) ?: rc;
}

/* EIO: a driver that was unbound left the TDI in ERROR, see pci_disable_device() */
static const int busy_or_state[] = { EBUSY, EINVAL, EIO, 0 };
static const int bind_errors[] = { EBUSY, ENODEV, ENOENT, 0 };
static const int gone_errors[] = { EBUSY, EINVAL, EIO, ENODEV, ENOENT, 0 };
static const int group_errors[] = { EPERM, EBUSY, EINVAL, ENOENT, 0 };
static const int none[] = { 0 };
/* A map that was refused */
static const int refused_map[] = { ENOMEM, 0 };
static const int busy[] = { EBUSY, 0 };

MACHINE_FIXTURE(races, NEED_ALL)

TEST_F(races, accept_bind)
{
	struct side sides[] = {
		{ .step = step_lock_accept_unlock, .allowed = busy_or_state,
		  .least = RACE_LEAST },
		{ .step = step_bind_at_times, .allowed = bind_errors,
		  .least = RACE_LEAST },
	};

	set_sides(sides, &self->m, self->t);
	ASSERT_EQ(0, tdi_trust(self->t, "tcb"));
	test_race(sides);
	test_usable(&self->m, self->t);
}

TEST_F(races, lock_unbind)
{
	struct side sides[] = {
		{ .step = step_lock_unlock, .allowed = busy_or_state,
		  .least = RACE_LEAST },
		{ .step = step_bind_at_times, .allowed = bind_errors,
		  .least = RACE_LEAST },
		{ .step = step_trust, .allowed = busy_or_state,
		  .least = RACE_LEAST },
	};

	set_sides(sides, &self->m, self->t);
	test_race(sides);
	test_usable(&self->m, self->t);
}

TEST_F(races, two_lockers)
{
	struct side sides[] = {
		{ .step = step_lock_accept_unlock, .allowed = busy_or_state },
		{ .step = step_lock_unlock, .allowed = busy_or_state },
	};

	set_sides(sides, &self->m, self->t);
	test_race(sides);
	EXPECT_LT(0, sides[0].done + sides[1].done);
	test_usable(&self->m, self->t);
}

TEST_F(races, unlock_group_type)
{
	struct side sides[] = {
		{ .step = step_lock_accept_unlock, .allowed = busy_or_state,
		  .least = RACE_LEAST },
		{ .step = step_bind_at_times, .allowed = bind_errors,
		  .least = RACE_LEAST },
		{ .step = step_group_type, .allowed = group_errors },
	};

	GROUP_OR_SKIP(&self->m, self->t);
	/* Untrusted, the TDI of model A has its one type only */
	if (self->m.rules->t0_walks)
		sides[2].least = RACE_LEAST;
	ASSERT_EQ(0, tdi_trust(self->t, "tcb"));
	set_sides(sides, &self->m, self->t);
	test_race(sides);
	ASSERT_EQ(0, tdi_reset(&self->m, self->t));
	EXPECT_EQ(0, tdi_flush_at_once(self->t));
	test_usable(&self->m, self->t);
}

TEST_F(races, remove_accept)
{
	struct side sides[] = {
		{ .step = step_remove_rescan, .allowed = gone_errors,
		  .least = RACE_LEAST },
		{ .step = step_lock_accept_unlock, .allowed = gone_errors,
		  .least = RACE_LEAST },
	};

	/* With a driver bound there would be nothing to race with */
	ASSERT_EQ(0, bus_autoprobe(false));
	set_sides(sides, &self->m, self->t);
	test_race(sides);
	bus_rescan();
	EXPECT_EQ(0, bus_autoprobe(true));
	test_usable(&self->m, self->t);
}

/* Two sides with one open TDI */
BOUND_FIXTURE(untrusted, NEED_ALL, UNLOCKED, "auto")

TEST_F(untrusted, map_trust_change)
{
	struct side sides[] = {
		{ .step = step_map_unmap, .allowed = refused_map,
		  .least = RACE_LEAST },
		{ .step = step_freeze, .allowed = busy, .least = RACE_LEAST },
		{ .step = step_trust, .allowed = busy },
	};

	set_sides(sides, &self->m, self->t);
	test_race(sides);
	EXPECT_EQ(0, sides[2].done);
	test_private(0, self->t);
	test_usable(&self->m, self->t);
}

/* Pages change their state while others are the target of DMA */
TEST_F(untrusted, set_memory_dma)
{
	struct side sides[] = {
		{ .step = step_shared_memory, .allowed = none,
		  .least = RACE_LEAST },
		{ .step = step_roundtrip, .allowed = none,
		  .least = RACE_LEAST },
	};

	set_sides(sides, &self->m, self->t);
	test_race(sides);
	test_usable(&self->m, self->t);
}

BOUND_FIXTURE(trusted, NEED_ALL, RUN, "tcb")

TEST_F(trusted, set_memory_dma)
{
	struct side sides[] = {
		{ .step = step_shared_memory, .allowed = none,
		  .least = RACE_LEAST },
		{ .step = step_roundtrip, .allowed = none,
		  .least = RACE_LEAST },
	};

	/* Then the pages change, and none of the mappings is made */
	if (!has_shared_window(&self->m)) {
		sides[0].allowed = refused_map;
		sides[0].least = 0;
	}
	set_sides(sides, &self->m, self->t);
	test_race(sides);
	test_usable(&self->m, self->t);
}

static int step_error_once(struct side *s)
{
	if (s->done)
		return usleep(1000), -EALREADY;
	usleep(RACE_MS * 1000 / 4);
	return platform_simple(s->m, s->t, CMD_SET_ERROR);
}

/* ERROR while mappings come and go: none is left, whichever was refused */
TEST_F(trusted, error_unmap)
{
	static const int once[] = { EALREADY, 0 };
	struct side sides[] = {
		{ .step = step_map_unmap, .allowed = refused_map },
		{ .step = step_map_unmap, .allowed = refused_map },
		{ .step = step_error_once, .allowed = once },
	};

	set_sides(sides, &self->m, self->t);
	test_race(sides);
	EXPECT_LT(0, sides[0].done);
	EXPECT_LT(0, sides[0].refused);
	test_state(ERROR, &self->m, self->t);
	test_live(0, self->t);
	test_usable(&self->m, self->t);
}

TEST_HARNESS_MAIN
