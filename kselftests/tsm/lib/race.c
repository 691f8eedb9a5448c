// SPDX-License-Identifier: GPL-2.0-only
/* The sides of races, and what more than one program has them do. */
#include <time.h>

#include "race.h"

#define TICK_MS 100

/*
 * A store to tsm/ that finds the device busy tries again after 20 ms: for so long
 * nobody binds, else none would ever get in
 */
#define BIND_PAUSE_MS 25

static void pause_ms(unsigned int ms)
{
	struct timespec pause = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&pause, NULL);
}

static void *run_side(void *arg)
{
	struct side *s = arg;

	while (!atomic_load(s->stop)) {
		const int *allowed;
		int rc = s->step(s);

		if (!rc) {
			s->done++;
			continue;
		}
		s->refused++;
		for (allowed = s->allowed; *allowed && -*allowed != rc;)
			allowed++;
		if (!*allowed)
			s->odd = rc;
	}
	return NULL;
}

static bool all_did_least(struct side *sides, int n)
{
	while (n--)
		if (__atomic_load_n(&sides[n].done, __ATOMIC_RELAXED) <
		    sides[n].least)
			return false;
	return true;
}

void race(struct side *sides, int n)
{
	atomic_bool stop = false;
	unsigned int ms;
	int i, started;

	for (started = 0; started < n; started++) {
		sides[started].stop = &stop;
		if (pthread_create(&sides[started].thread, NULL, run_side,
				   &sides[started])) {
			sides[started].odd = -EAGAIN;
			break;
		}
	}
	for (ms = 0; ms < RACE_MS ||
		     (ms < RACE_MAX_MS && !all_did_least(sides, started));
	     ms += TICK_MS)
		pause_ms(TICK_MS);
	atomic_store(&stop, true);
	for (i = 0; i < started; i++)
		pthread_join(sides[i].thread, NULL);
}

/*
 * Unlocked whatever became of it. The TSM may go and come back meanwhile, also
 * under another name.
 */
int step_lock_accept_unlock(struct side *s)
{
	int rc = tdi_lock(s->m, s->t), unlocked;

	if (!rc)
		rc = tdi_accept(s->t);
	unlocked = tdi_unlock(s->m, s->t);
	return rc ?: unlocked;
}

/* Unlocked in any case: else, once a driver was in the way, it is locked for good */
int step_lock_unlock(struct side *s)
{
	int rc = tdi_lock(s->m, s->t);
	int unlocked = tdi_unlock(s->m, s->t);

	return rc ?: unlocked;
}

int step_bind_unbind(struct side *s)
{
	int rc = tdi_bind(s->t);

	return rc ?: tdi_write(s->t, "driver/unbind", s->t->bdf);
}

int step_bind_at_times(struct side *s)
{
	int rc = step_bind_unbind(s);

	pause_ms(BIND_PAUSE_MS);
	return rc;
}

int step_trust(struct side *s)
{
	return tdi_trust(s->t, "tcb") ?: tdi_trust(s->t, "auto");
}

/* Nobody can unlock what is not there: it has to be unlocked by then */
int step_remove_rescan(struct side *s)
{
	int rc = tdi_write(s->t, "remove", "1");
	int state = rc ? UNLOCKED : platform_state(s->m, s->t);

	if (state != UNLOCKED)
		rc = state < 0 ? state : -EUCLEAN;
	return bus_rescan() ?: rc;
}

int step_map_unmap(struct side *s)
{
	struct tdi_test_map map;
	int rc = tdi_map(s->t, TDI_TEST_PHYS, 0, 2 * PAGE, &map);

	if (rc)
		return rc;
	if (map.slot == TDI_TEST_NO_SLOT)
		return -ENOMEM;
	return tdi_unmap(s->t, map.slot);
}
