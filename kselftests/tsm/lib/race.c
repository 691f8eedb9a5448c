// SPDX-License-Identifier: GPL-2.0-only
/* The sides of races, and what more than one program has them do. */
#include <time.h>

#include "race.h"

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

void race(struct side *sides, int n, unsigned int ms)
{
	struct timespec pause = { ms / 1000, ms % 1000 * 1000000L };
	atomic_bool stop = false;
	int i, started;

	for (started = 0; started < n; started++) {
		sides[started].stop = &stop;
		if (pthread_create(&sides[started].thread, NULL, run_side,
				   &sides[started])) {
			sides[started].odd = -EAGAIN;
			break;
		}
	}
	nanosleep(&pause, NULL);
	atomic_store(&stop, true);
	for (i = 0; i < started; i++)
		pthread_join(sides[i].thread, NULL);
}

/* The TSM may go and come back meanwhile, also under another name */
int step_lock_accept_unlock(struct side *s)
{
	int rc = tdi_lock(s->m, s->t);

	if (!rc)
		rc = tdi_accept(s->t);
	/* Whatever became of it */
	tdi_unlock(s->m, s->t);
	return rc;
}

int step_lock_unlock(struct side *s)
{
	return tdi_lock(s->m, s->t) ?: tdi_unlock(s->m, s->t);
}

int step_bind_unbind(struct side *s)
{
	int rc = tdi_bind(s->t);

	return rc ?: tdi_write(s->t, "driver/unbind", s->t->bdf);
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
