// SPDX-License-Identifier: GPL-2.0-only
/*
 * Evidence for a relying party in user space: the generic netlink family
 * device-evidence. That the signature is good is for who has a crypto library;
 * here it is about what is asked of whom, and about generations.
 */
#include <errno.h>

#include "../kselftest_harness.h"
#include "evidence.h"

/* The signed statement of the platform's devices */
#define STATEMENT_STATE 6
#define STATEMENT_NONCE_LEN 7
#define STATEMENT_GENERATION 16
#define STATEMENT_NONCE 24
#define STATEMENT_MIN (156 + 96)

#define NONCE_MAX DEVICE_EVIDENCE_NONCE_MAX
#define CHAIN DEVICE_EVIDENCE_TYPE_CERT0
#define MEASUREMENTS DEVICE_EVIDENCE_TYPE_MEASUREMENTS
#define REPORT DEVICE_EVIDENCE_TYPE_REPORT

FIXTURE(evidence)
{
	struct machine m;
	struct tdi *t;
	struct evidence ev;
};

FIXTURE_SETUP(evidence)
{
	self->ev.fd = -1;
	OPEN_MACHINE_OR_SKIP(&self->m, NEED_ALL);
	if (evidence_open(&self->ev) == -ENOENT)
		SKIP(return, "no netlink family " DEVICE_EVIDENCE_FAMILY_NAME);
	ASSERT_LE(0, self->ev.fd);
	self->t = &self->m.tdi[0];
	ASSERT_EQ(0, tdi_begin(&self->m, self->t));
}

/* A device about which a verdict was needed always needs one: take a new one */
FIXTURE_TEARDOWN(evidence)
{
	if (!self->t)
		return;
	test_check(&self->m);
	EXPECT_EQ(0, tdi_reset(&self->m, self->t));
	EXPECT_EQ(0, tdi_remove(self->t));
	EXPECT_EQ(0, bus_rescan());
	EXPECT_EQ(0, tdi_reset(&self->m, self->t));
	evidence_close(&self->ev);
	machine_close(&self->m);
}

static __u64 statement_generation(const struct evidence *ev)
{
	__u64 generation;

	memcpy(&generation, ev->object[MEASUREMENTS].data + STATEMENT_GENERATION,
	       sizeof(generation));
	return generation;
}

/* Complete objects, about this lock and this nonce */
#define test_evidence(nonce, nonce_len)                                       \
	do {                                                                  \
		struct evidence_object *_m;                                   \
		ASSERT_EQ(0, evidence_get(&self->ev, self->t, nonce,          \
					  nonce_len));                        \
		_m = &self->ev.object[MEASUREMENTS];                          \
		ASSERT_NE(NULL, _m->data);                                    \
		ASSERT_LT(STATEMENT_MIN, _m->size);                           \
		EXPECT_EQ(_m->size, _m->seen);                                \
		EXPECT_EQ(0, memcmp(_m->data, "TDEV", 4));                    \
		EXPECT_EQ(nonce_len, _m->data[STATEMENT_NONCE_LEN]);          \
		EXPECT_EQ(0, memcmp(_m->data + STATEMENT_NONCE, nonce,        \
				    nonce_len));                              \
		EXPECT_EQ(platform_generation(&self->m, self->t),             \
			  self->ev.generation);                               \
		EXPECT_EQ(self->ev.generation,                                \
			  statement_generation(&self->ev));                   \
	} while (0)

/* 42: the objects of a locked TDI. Some take more than one message */
TEST_F(evidence, evidence_locked)
{
	static const struct {
		int object, type;
	} same[] = { { 0, CHAIN }, { 2, REPORT } };
	static unsigned char data[65536];
	struct evidence_object *object;
	unsigned int i;
	ssize_t size;

	test_to(&self->m, self->t, LOCKED, "auto");
	test_evidence("0123456789abcdef0123456789abcdef", 32);
	EXPECT_EQ(LOCKED,
		  self->ev.object[MEASUREMENTS].data[STATEMENT_STATE]);

	/* Not by way of the kernel's interface: the same chain and report */
	for (i = 0; i < ARRAY_SIZE(same); i++) {
		object = &self->ev.object[same[i].type];
		size = platform_evidence(&self->m, self->t, same[i].object,
					 data, sizeof(data));
		ASSERT_LT(0, size);
		ASSERT_NE(NULL, object->data);
		ASSERT_EQ(size, object->size);
		EXPECT_EQ(size, object->seen);
		EXPECT_EQ(0, memcmp(data, object->data, size));
	}
}

/* Also in RUN, and with a short nonce */
TEST_F(evidence, evidence_run)
{
	test_to(&self->m, self->t, RUN, "auto");
	test_evidence("x", 1);
	EXPECT_EQ(RUN, self->ev.object[MEASUREMENTS].data[STATEMENT_STATE]);
}

/* 42: nobody answers for a TDI that is not locked */
TEST_F(evidence, report_unlocked)
{
	EXPECT_EQ(-ENXIO, evidence_get(&self->ev, self->t, "x", 1));
	EXPECT_EQ(NULL, self->ev.object[REPORT].data);
	EXPECT_EQ(-ENXIO, evidence_validate(&self->ev, self->t, 1));
	test_state(UNLOCKED, &self->m, self->t);
}

/* 42: nonces of 33 bytes and of none */
TEST_F(evidence, nonce_length)
{
	char nonce[NONCE_MAX + 1] = {};
	int i;

	test_to(&self->m, self->t, LOCKED, "auto");
	EXPECT_EQ(-ERANGE,
		  evidence_get(&self->ev, self->t, nonce, NONCE_MAX + 1));
	EXPECT_EQ(-ERANGE, evidence_get(&self->ev, self->t, nonce, 0));
	for (i = 0; i <= DEVICE_EVIDENCE_TYPE_MAX; i++) {
		EXPECT_EQ(NULL, self->ev.object[i].data);
	}
	test_evidence(nonce, NONCE_MAX);
}

/* 42: a generation that was never, or is not any more */
TEST_F(evidence, stale_generation)
{
	__u64 generation;

	test_to(&self->m, self->t, LOCKED, "auto");
	generation = platform_generation(&self->m, self->t);
	EXPECT_EQ(-ESTALE,
		  evidence_validate(&self->ev, self->t, generation + 1));
	EXPECT_EQ(-ESTALE, tdi_accept(self->t));
	test_state(LOCKED, &self->m, self->t);

	EXPECT_EQ(0, evidence_validate(&self->ev, self->t, generation));
	EXPECT_EQ(0, tdi_accept(self->t));
	test_state(RUN, &self->m, self->t);
}

/* 43: what was found good is not what is accepted */
TEST_F(evidence, relock_toctou)
{
	__u64 old;

	test_to(&self->m, self->t, LOCKED, "tcb");
	test_evidence("nonce", 5);
	old = self->ev.generation;
	EXPECT_EQ(0, evidence_validate(&self->ev, self->t, old));

	ASSERT_EQ(0, tdi_unlock(&self->m, self->t));
	ASSERT_EQ(0, tdi_lock(&self->m, self->t));
	EXPECT_NE(old, platform_generation(&self->m, self->t));
	EXPECT_EQ(-ESTALE, tdi_accept(self->t));
	test_state(LOCKED, &self->m, self->t);
	EXPECT_EQ(-ESTALE, evidence_validate(&self->ev, self->t, old));
	EXPECT_EQ(-ESTALE, tdi_accept(self->t));
	test_state(LOCKED, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);

	test_evidence("another", 7);
	EXPECT_EQ(0, evidence_validate(&self->ev, self->t, self->ev.generation));
	EXPECT_EQ(0, tdi_accept(self->t));
	test_state(RUN, &self->m, self->t);
}

/* The security processor fails while it is asked */
TEST_F(evidence, evidence_fails)
{
	test_to(&self->m, self->t, LOCKED, "auto");
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_EVIDENCE,
				     INJECT_ERROR, RESULT_FAILED, 1));
	EXPECT_EQ(-EIO, evidence_get(&self->ev, self->t, "x", 1));
	test_state(LOCKED, &self->m, self->t);
	test_evidence("x", 1);
}

/* ERROR: what was measured is gone */
TEST_F(evidence, evidence_error)
{
	test_to(&self->m, self->t, RUN, "auto");
	ASSERT_EQ(0, platform_simple(&self->m, self->t, CMD_SET_ERROR));
	test_state(ERROR, &self->m, self->t);
	EXPECT_TRUE(evidence_get(&self->ev, self->t, "x", 1) < 0 ||
		    self->ev.object[MEASUREMENTS].data[STATEMENT_STATE] == ERROR);
}

/* No such device */
TEST_F(evidence, no_device)
{
	struct tdi none = { .bdf = "ffff:ff:1f.7" };

	EXPECT_EQ(-ENXIO, evidence_get(&self->ev, &none, "x", 1));
	EXPECT_EQ(-ENXIO, evidence_validate(&self->ev, &none, 1));
}

TEST_HARNESS_MAIN
