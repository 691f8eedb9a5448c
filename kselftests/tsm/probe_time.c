// SPDX-License-Identifier: GPL-2.0-only
/*
 * Attestation by the driver, in its probe(): untrusted DMA first, if it needs
 * some, then all of it ended, then locked, verified, accepted, and private DMA.
 * Each precondition is tested by breaking it.
 */
#include <errno.h>

#include "../kselftest_harness.h"
#include "tsm_test.h"

#define TWO_PAGES (2 * PAGE)
#define ATTEST TDI_TEST_PROBE_ATTEST
#define IGNORE (TDI_TEST_PROBE_ATTEST | TDI_TEST_PROBE_IGNORE)

FIXTURE(probe)
{
	struct machine m;
	struct tdi *t;
	struct tdi_test_probe p;
};

FIXTURE_SETUP(probe)
{
	MACHINE_SETUP(NEED_ALL | NEED_ACCOUNTING);
	ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
}

MACHINE_TEARDOWN(probe)

/* Bind with a mode, and look at what probe() saw */
#define test_probe(mode, expected)                                            \
	do {                                                                  \
		ASSERT_EQ(0, probe_mode(&self->m, self->t, mode));            \
		EXPECT_EQ(expected, tdi_bind(self->t));                       \
		ASSERT_EQ(0, probe_result(&self->m, self->t, &self->p));      \
		EXPECT_LE(1, self->p.probes);                                 \
	} while (0)

/* The driver is bound, untrusted, and the TDI was not even locked */
#define test_refused(error, generation)                                       \
	do {                                                                  \
		EXPECT_EQ(error, self->p.attest);                             \
		EXPECT_EQ(0, self->p.private_inside);                         \
		test_untouched(&self->m, self->t, UNLOCKED, generation);      \
	} while (0)

#define test_trusted_works()                                                  \
	do {                                                                  \
		struct tdi_test_map _map;                                     \
		test_private(1, self->t);                                     \
		test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &_map);        \
		test_target(&self->m, self->t, &_map, 0, 0, false);           \
		test_roundtrip(self->t, &_map, TWO_PAGES, TDI_TEST_T_1);      \
		test_unmap(self->t, &_map);                                   \
	} while (0)

/* 27 */
TEST_F(probe, probe_switch)
{
	int i;

	for (i = 0; i < 3; i++) {
		test_probe(ATTEST, 0);
		EXPECT_EQ(0, self->p.attest);
		EXPECT_EQ(1, self->p.private_inside);
		test_state(RUN, &self->m, self->t);
		test_dma_enabled(1, &self->m, self->t);
		ASSERT_EQ(0, tdi_open(self->t));
		test_trusted_works();

		/* What the driver did ends with it */
		test_unbind(self->t);
		test_state(UNLOCKED, &self->m, self->t);
		test_dma_enabled(0, &self->m, self->t);
	}
}

/* The whole of it: untrusted DMA, none, trusted DMA, within one probe() */
TEST_F(probe, probe_untrusted_first)
{
	test_probe(ATTEST | TDI_TEST_PROBE_DMA_FIRST, 0);
	EXPECT_EQ(NONE, self->p.first_reason);
	EXPECT_EQ(0, self->p.attest);
	EXPECT_EQ(1, self->p.private_inside);
	test_state(RUN, &self->m, self->t);
	ASSERT_EQ(0, tdi_open(self->t));
	test_trusted_works();
}

/* 28 */
FIXTURE(refuse)
{
	struct machine m;
	struct tdi *t;
	struct tdi_test_probe p;
};

FIXTURE_VARIANT(refuse)
{
	__u32 obstacle;
};

FIXTURE_VARIANT_ADD(refuse, bus_master)
{
	.obstacle = TDI_TEST_PROBE_MASTER
};
FIXTURE_VARIANT_ADD(refuse, one_map)
{
	.obstacle = TDI_TEST_PROBE_MAP
};
FIXTURE_VARIANT_ADD(refuse, one_coherent)
{
	.obstacle = TDI_TEST_PROBE_COHERENT
};
/* It waits, but another thread calls */
FIXTURE_VARIANT_ADD(refuse, other_thread)
{
	.obstacle = TDI_TEST_PROBE_THREAD
};

FIXTURE_SETUP(refuse)
{
	MACHINE_SETUP(NEED_ALL | NEED_ACCOUNTING);
	ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
}

MACHINE_TEARDOWN(refuse)

TEST_F(refuse, probe_switch_neg)
{
	__u64 generation = platform_generation(&self->m, self->t);

	test_probe(IGNORE | variant->obstacle, 0);
	test_refused(-EBUSY, generation);
	ASSERT_EQ(0, tdi_open(self->t));
	test_untrusted_works(&self->m, self->t);
}

/* The driver gives up because of it: as if nothing had been */
TEST_F(refuse, probe_gives_up)
{
	__u64 generation = platform_generation(&self->m, self->t);

	test_probe(ATTEST | variant->obstacle, -EBUSY);
	test_refused(-EBUSY, generation);
	EXPECT_FALSE(tdi_is_bound(self->t));
	test_probe(ATTEST, 0);
	EXPECT_EQ(0, self->p.attest);
}

/* 28, after probe(): also without a mapping and with bus mastering off */
TEST_F(probe, probe_switch_late)
{
	__u64 generation;

	test_probe(0, 0);
	ASSERT_EQ(0, tdi_open(self->t));
	generation = platform_generation(&self->m, self->t);
	test_err_attest(&self->m, self->t, generation);
}

/* Once is enough */
TEST_F(probe, probe_switch_twice)
{
	test_probe(ATTEST | TDI_TEST_PROBE_AGAIN, 0);
	EXPECT_EQ(0, self->p.attest);
	EXPECT_EQ(-EBUSY, self->p.again);
	test_state(RUN, &self->m, self->t);
	ASSERT_EQ(0, tdi_open(self->t));
	test_trusted_works();
}

/* Somebody else locked it: it is not the driver's to accept */
TEST_F(probe, probe_switch_locked)
{
	__u64 generation;

	test_to(&self->m, self->t, LOCKED, "auto");
	generation = platform_generation(&self->m, self->t);
	test_probe(IGNORE, 0);
	EXPECT_EQ(-EBUSY, self->p.attest);
	EXPECT_EQ(0, self->p.private_inside);
	test_state(LOCKED, &self->m, self->t);
	EXPECT_EQ(generation, platform_generation(&self->m, self->t));
	test_dma_enabled(0, &self->m, self->t);
}

/* The level says that it cannot be trusted */
TEST_F(probe, probe_switch_adversary)
{
	__u64 generation = platform_generation(&self->m, self->t);

	ASSERT_EQ(0, tdi_trust(self->t, "adversary"));
	test_probe(IGNORE, 0);
	test_refused(-EPERM, generation);
	ASSERT_EQ(0, tdi_open(self->t));
	test_untrusted_works(&self->m, self->t);
}

/* 29: trust and DMA are reverted, and the next probe() begins anew */
TEST_F(probe, probe_defer)
{
	ASSERT_EQ(0, probe_mode(&self->m, self->t, ATTEST | TDI_TEST_PROBE_DEFER));
	EXPECT_EQ(-EAGAIN, tdi_bind(self->t));
	ASSERT_EQ(0, probe_result(&self->m, self->t, &self->p));
	EXPECT_LE(1, self->p.probes);
	EXPECT_EQ(0, self->p.attest);
	EXPECT_EQ(1, self->p.private_inside);
	EXPECT_FALSE(tdi_is_bound(self->t));
	test_state(UNLOCKED, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);

	/* The kernel may try again by itself meanwhile */
	ASSERT_EQ(0, probe_mode(&self->m, self->t, 0));
	tdi_bind(self->t);
	ASSERT_EQ(0, tdi_open(self->t));
	test_untrusted_works(&self->m, self->t);
}

TEST_F(probe, probe_fail)
{
	test_probe(ATTEST | TDI_TEST_PROBE_FAIL, -ENXIO);
	EXPECT_EQ(0, self->p.attest);
	EXPECT_EQ(1, self->p.private_inside);
	EXPECT_FALSE(tdi_is_bound(self->t));
	test_state(UNLOCKED, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);

	test_probe(0, 0);
	ASSERT_EQ(0, tdi_open(self->t));
	test_untrusted_works(&self->m, self->t);
}

/* Nobody vouches for this device */
TEST_F(probe, probe_other_root)
{
	ASSERT_EQ(0, policy_set(&self->m, self->t, true, NULL, 0));
	test_probe(IGNORE, 0);
	EXPECT_EQ(-ENOKEY, self->p.attest);
	EXPECT_EQ(0, self->p.private_inside);
	test_state(UNLOCKED, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);
	ASSERT_EQ(0, tdi_open(self->t));
	test_untrusted_works(&self->m, self->t);
}

/* 42: measurements that are not those of the policy, or are */
TEST_F(probe, probe_reference)
{
	static unsigned char statement[8192];
	const size_t head = 156, signature = 96;
	ssize_t size;

	size = platform_evidence(&self->m, self->t, 1, statement,
				 sizeof(statement));
	ASSERT_LT((ssize_t)(head + signature), size);
	size -= head + signature;
	ASSERT_EQ(0, policy_set(&self->m, self->t, false, statement + head, size));
	test_probe(ATTEST, 0);
	EXPECT_EQ(0, self->p.attest);
	EXPECT_EQ(1, self->p.private_inside);
	test_unbind(self->t);

	/* The device measures something else, and signs that */
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_EVIDENCE,
				     INJECT_WRONG_MEASUREMENT, 0, 16));
	test_probe(IGNORE, 0);
	EXPECT_EQ(-EBADMSG, self->p.attest);
	EXPECT_EQ(0, self->p.private_inside);
	test_state(UNLOCKED, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);
	test_unbind(self->t);
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_EVIDENCE,
				     INJECT_CLEAR, 0, 0));

	/* The policy knows another measurement */
	statement[head + 4] ^= 1;
	ASSERT_EQ(0, policy_set(&self->m, self->t, false, statement + head, size));
	test_probe(IGNORE, 0);
	EXPECT_EQ(-EBADMSG, self->p.attest);
	test_state(UNLOCKED, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);
}

/* 42, in the kernel: evidence that is not what it says */
FIXTURE(forged)
{
	struct machine m;
	struct tdi *t;
	struct tdi_test_probe p;
};

FIXTURE_VARIANT(forged)
{
	enum opcode opcode;
	enum injection kind;
	int error;
};

#define FORGED(name, op, how, err)                                            \
	FIXTURE_VARIANT_ADD(forged, name)                                     \
	{                                                                     \
		.opcode = op, .kind = how, .error = err                       \
	}

FORGED(wrong_key, CMD_EVIDENCE, INJECT_WRONG_KEY, EKEYREJECTED);
FORGED(wrong_chain, CMD_EVIDENCE, INJECT_WRONG_CHAIN, EBADMSG);
FORGED(wrong_nonce, CMD_EVIDENCE, INJECT_WRONG_NONCE, EBADMSG);
FORGED(lock_fails, CMD_LOCK, INJECT_ERROR, EIO);
FORGED(evidence_fails, CMD_EVIDENCE, INJECT_ERROR, EIO);
FORGED(run_fails, CMD_RUN, INJECT_ERROR, EIO);
FORGED(enable_dma_fails, CMD_ENABLE_DMA, INJECT_ERROR, EIO);

FIXTURE_SETUP(forged)
{
	MACHINE_SETUP(NEED_ALL | NEED_ACCOUNTING);
	ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
}

MACHINE_TEARDOWN(forged)

TEST_F(forged, probe_refuses)
{
	ASSERT_EQ(0, platform_inject(&self->m, self->t, variant->opcode,
				     variant->kind, RESULT_FAILED, 16));
	test_probe(IGNORE, 0);
	EXPECT_EQ(-variant->error, self->p.attest);
	EXPECT_EQ(0, self->p.private_inside);
	test_state(UNLOCKED, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);
	ASSERT_EQ(0, tdi_open(self->t));
	test_untrusted_works(&self->m, self->t);
	test_unbind(self->t);

	/* Good evidence is good again */
	ASSERT_EQ(0, platform_inject(&self->m, self->t, variant->opcode,
				     INJECT_CLEAR, 0, 0));
	test_probe(ATTEST, 0);
	EXPECT_EQ(0, self->p.attest);
}

TEST_HARNESS_MAIN
