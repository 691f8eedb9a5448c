/* SPDX-License-Identifier: GPL-2.0-only */
/* A TDI that gets no private DMA, whoever asks, and goes on without it */
#ifndef REFUSED_H
#define REFUSED_H

#include "tsm_test.h"

/* Trusted: the kernel does not bind it; untrusted, it does */
#define test_bind_refused(err, m, t)                                          \
	do {                                                                  \
		struct tdi_test_probe _probe;                                 \
		test_to(m, t, RUN, "tcb");                                    \
		ASSERT_EQ(0, probe_mode(m, t, 0));                            \
		test_err_quiet(err, m, t, tdi_bind(t));                       \
		EXPECT_FALSE(tdi_is_bound(t));                                \
		ASSERT_EQ(0, probe_result(m, t, &_probe));                    \
		EXPECT_EQ(0, _probe.probes);                                  \
		test_state(RUN, m, t);                                        \
		test_dma_enabled(0, m, t);                                    \
		ASSERT_EQ(0, tdi_trust(t, "auto"));                           \
		test_bind(t);                                                 \
		test_untrusted_works(m, t);                                   \
	} while (0)

/* The driver asks in its probe(), and goes on untrusted */
#define test_attest_refused(err, m, t)                                        \
	do {                                                                  \
		struct tdi_test_probe _probe;                                 \
		ASSERT_EQ(0, policy_set(m, t, false, NULL, 0));               \
		ASSERT_EQ(0, probe_mode(m, t, TDI_TEST_PROBE_ATTEST |         \
					 TDI_TEST_PROBE_IGNORE));             \
		test_bind(t);                                                 \
		ASSERT_EQ(0, probe_result(m, t, &_probe));                    \
		EXPECT_EQ(err, _probe.attest);                                \
		EXPECT_EQ(0, _probe.private_inside);                          \
		test_state(UNLOCKED, m, t);                                   \
		test_dma_enabled(0, m, t);                                    \
		test_untrusted_works(m, t);                                   \
	} while (0)

#endif
