/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two sides or more at the same time, for a while: whoever wins, the outcome is
 * one of those that are possible one after the other, and nothing is left behind.
 * Of most use with lockdep and KASAN.
 */
#ifndef RACE_H
#define RACE_H

#include <pthread.h>
#include <stdatomic.h>

#include "tsm_test.h"

#define RACE_MS 1500
#define RACE_MAX_MS 8000

/* What is no race if it hardly ever succeeds */
#define RACE_LEAST 3

/*
 * One side: @step again and again until the time is over. @done counts what
 * succeeded, @refused what failed; errors that are not in @allowed go to @odd.
 * A race lasts RACE_MS, and longer for a side that has not done @least yet.
 */
struct side {
	struct machine *m;
	struct tdi *t;
	int (*step)(struct side *s);
	const int *allowed;
	unsigned long least;
	atomic_bool *stop;
	pthread_t thread;
	unsigned long done;
	unsigned long refused;
	int odd;
};

void race(struct side *sides, int n);

int step_lock_accept_unlock(struct side *s);
int step_lock_unlock(struct side *s);
int step_bind_unbind(struct side *s);
int step_bind_at_times(struct side *s);
int step_trust(struct side *s);
int step_remove_rescan(struct side *s);
int step_map_unmap(struct side *s);

#define set_sides(sides, machine, tdi)                                        \
	do {                                                                  \
		unsigned int _i;                                              \
		for (_i = 0; _i < ARRAY_SIZE(sides); _i++) {                  \
			(sides)[_i].m = machine;                              \
			(sides)[_i].t = tdi;                                  \
		}                                                             \
	} while (0)

/* No error that cannot be, and all sides got through as often as they have to */
#define test_race(sides)                                                      \
	do {                                                                  \
		long _splats = kernel_splats();                               \
		unsigned int _i;                                              \
		race(sides, ARRAY_SIZE(sides));                               \
		for (_i = 0; _i < ARRAY_SIZE(sides); _i++) {                  \
			TH_LOG("side %u: %lu done, %lu refused", _i,          \
			       (sides)[_i].done, (sides)[_i].refused);        \
			EXPECT_EQ(0, (sides)[_i].odd);                        \
			EXPECT_LT(0, (sides)[_i].done + (sides)[_i].refused); \
			EXPECT_LE((sides)[_i].least, (sides)[_i].done);       \
		}                                                             \
		EXPECT_EQ(_splats, kernel_splats());                          \
	} while (0)

/* Whatever the race left: the TDI can be used, untrusted and trusted */
#define test_usable(m, t)                                                     \
	do {                                                                  \
		struct tdi_test_map _map;                                     \
		int _trusted;                                                 \
		for (_trusted = 0; _trusted < 2; _trusted++) {                \
			ASSERT_EQ(0, tdi_reset(m, t));                        \
			if (_trusted)                                         \
				test_to(m, t, RUN, "tcb");                    \
			test_bind(t);                                         \
			test_private(_trusted, t);                            \
			test_live(0, t);                                      \
			test_no_mismatch(t);                                  \
			test_map(t, TDI_TEST_PHYS, 0, 2 * PAGE, &_map);       \
			test_roundtrip(t, &_map, 2 * PAGE,                    \
				       TDI_TEST_T_DRIVER);                    \
			test_unmap(t, &_map);                                 \
		}                                                             \
	} while (0)

#endif /* RACE_H */
