// SPDX-License-Identifier: GPL-2.0-only
/*
 * A TSM that goes and comes back, in the midst of tsm/lock and tsm/accept, of
 * probe() with private DMA and without, of DMA mappings, and of the removal of its
 * TDI. Whenever it is gone the TDI is unlocked. See tsm_gone.c for what is left.
 */
#include <errno.h>

#include "../kselftest_harness.h"
#include "race.h"

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

/*
 * When the TSM is gone nobody can have locked the TDI. It stays for 1 to 256 ms, so
 * that others get to each of their steps before it goes.
 */
static int step_go_come(struct side *s)
{
	int rc, state;

	usleep(1000 << s->done % 9);
	rc = tsm_go();
	if (rc)
		return rc;
	state = platform_state(s->m, s->t);
	if (state > UNLOCKED)
		rc = -EUCLEAN;
	if (platform_dma_enabled(s->m, s->t) > 0)
		rc = -EKEYREJECTED;
	return tsm_come() ?: rc;
}

/* By whatever name it has now */
static int step_lock(struct side *s)
{
	struct side now = *s;
	struct machine m = *s->m;

	machine_find_tsm(&m);
	if (!m.tsm[0])
		return -ENXIO;
	now.m = &m;
	return step_lock_accept_unlock(&now);
}

static int step_read(struct side *s)
{
	char text[32];

	return tdi_read(s->t, "tsm/lock", text, sizeof(text)) ?:
	       tdi_read(s->t, "tsm/state", text, sizeof(text)) ?:
	       tdi_read(s->t, "tsm/accept", text, sizeof(text));
}

/* Trusted if it can be, or untrusted; never both. Done: with private DMA at first */
static int step_trusted_binding(struct side *s)
{
	struct machine m = *s->m;
	int rc, unbound;

	machine_find_tsm(&m);
	rc = m.tsm[0] ? tdi_lock(&m, s->t) : -ENXIO;
	if (!rc)
		rc = tdi_accept(s->t);
	if (!rc)
		rc = tdi_bind(s->t);
	if (rc)
		return step_bind_unbind(s) ?: rc;
	if (platform_dma_enabled(s->m, s->t) <= 0)
		rc = -ENXIO;
	unbound = tdi_write(s->t, "driver/unbind", s->t->bdf);
	/* The next one begins anew also where the TSM stayed */
	tdi_unlock(&m, s->t);
	return unbound ?: rc;
}

static const int no_errors[] = { 0 };
/* The file was not there, or went away; the TSM did; it was unlocked meanwhile */
static const int gone_errors[] = { EBUSY, EINVAL, EIO, ENODEV, ENOENT, ENXIO,
				   0 };

/* After the TSM came and went, and others did what they did */
#define test_gone_race(sides)                                                 \
	do {                                                                  \
		set_sides(sides, &self->m, self->t);                          \
		test_race(sides);                                             \
		ASSERT_EQ(0, tsm_back(&self->m));                             \
		bus_rescan();                                                 \
		test_usable(&self->m, self->t);                               \
	} while (0)

TEST_F(gone, unregister_lock)
{
	struct side sides[] = {
		{ .step = step_go_come, .allowed = no_errors,
		  .least = RACE_LEAST },
		{ .step = step_lock, .allowed = gone_errors,
		  .least = RACE_LEAST },
		{ .step = step_read, .allowed = gone_errors,
		  .least = RACE_LEAST },
	};

	test_gone_race(sides);
}

TEST_F(gone, unregister_bind)
{
	struct side sides[] = {
		{ .step = step_go_come, .allowed = no_errors,
		  .least = RACE_LEAST },
		{ .step = step_trusted_binding, .allowed = gone_errors,
		  .least = RACE_LEAST },
	};

	ASSERT_EQ(0, tdi_trust(self->t, "tcb"));
	test_gone_race(sides);
}

TEST_F(gone, unregister_attest)
{
	struct side sides[] = {
		{ .step = step_go_come, .allowed = no_errors,
		  .least = RACE_LEAST },
		{ .step = step_bind_unbind, .allowed = gone_errors,
		  .least = RACE_LEAST },
	};

	ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
	ASSERT_EQ(0, probe_mode(&self->m, self->t, TDI_TEST_PROBE_ATTEST));
	test_gone_race(sides);
}

TEST_F(gone, unregister_remove)
{
	struct side sides[] = {
		{ .step = step_go_come, .allowed = no_errors,
		  .least = RACE_LEAST },
		{ .step = step_remove_rescan, .allowed = gone_errors,
		  .least = RACE_LEAST },
		{ .step = step_lock, .allowed = gone_errors,
		  .least = RACE_LEAST },
	};

	test_gone_race(sides);
}

static int step_go_once(struct side *s)
{
	if (s->done)
		return usleep(1000), -EALREADY;
	usleep(RACE_MS * 1000 / 4);
	return tsm_go();
}

/* The TSM goes while mappings come and go: none is left, whichever was refused */
TEST_F(gone, unregister_map)
{
	static const int once[] = { EALREADY, 0 };
	static const int refused_map[] = { ENOMEM, 0 };
	struct side sides[] = {
		{ .step = step_map_unmap, .allowed = refused_map },
		{ .step = step_map_unmap, .allowed = refused_map },
		{ .step = step_go_once, .allowed = once },
	};

	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(1, self->t);
	set_sides(sides, &self->m, self->t);
	test_race(sides);
	EXPECT_LT(0, sides[0].done);
	EXPECT_LT(0, sides[0].refused);
	EXPECT_EQ(1, sides[2].done);
	test_state(UNLOCKED, &self->m, self->t);
	test_live(0, self->t);
	test_unbind(self->t);
	ASSERT_EQ(0, tsm_back(&self->m));
	test_usable(&self->m, self->t);
}

TEST_HARNESS_MAIN
