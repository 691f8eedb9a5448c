// SPDX-License-Identifier: GPL-2.0-only
/*
 * Trust that is lost while a driver is bound: errors, resets, bus mastering,
 * removal. DMA to private memory stops, new mappings fail, unmapping is safe, and
 * only unlock helps. And commands of the security processor that fail.
 */
#include <errno.h>

#include "../kselftest_harness.h"
#include "tsm_test.h"

#define TWO_PAGES (2 * PAGE)
#define T_1 TDI_TEST_T_1

/* How long the kernel may take to notice an event */
#define NOTICE_TRIES 200
#define NOTICE_PAUSE_US 10000

BOUND_FIXTURE(trusted, NEED_ALL, RUN, "tcb")

/* True as soon as no new mapping can be made */
static bool maps_fail(struct tdi *t)
{
	struct tdi_test_map map;
	int i;

	for (i = 0; i < NOTICE_TRIES; i++) {
		if (tdi_map(t, TDI_TEST_PHYS, 0, TWO_PAGES, &map))
			return false;
		if (map.slot == TDI_TEST_NO_SLOT)
			return true;
		tdi_unmap(t, map.slot);
		usleep(NOTICE_PAUSE_US);
	}
	return false;
}

/* The driver goes, and what helps is unlock alone */
#define test_only_unlock_helps(m, t)                                          \
	do {                                                                  \
		test_unbind(t);                                               \
		test_state(ERROR, m, t);                                      \
		test_dma_enabled(0, m, t);                                    \
		EXPECT_EQ(-EIO, tdi_accept(t));                               \
		EXPECT_EQ(-EBUSY, tdi_lock(m, t));                            \
		test_state(ERROR, m, t);                                      \
		ASSERT_EQ(0, tdi_unlock(m, t));                               \
		test_to(m, t, RUN, "tcb");                                    \
		test_bind(t);                                                 \
		test_private(1, t);                                           \
	} while (0)

MACHINE_FIXTURE(commands, NEED_ALL)

/* 30 */
TEST_F(trusted, bme_clear_run)
{
	struct tdi_test_map map, again;

	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_roundtrip(self->t, &map, TWO_PAGES, T_1);
	ASSERT_EQ(0, ioctl(self->t->fd, TDI_TEST_SET_MASTER,
			   TDI_TEST_MASTER_CLEAR_RAW));
	test_err_dma(BUS_MASTER_OFF, &self->m, self->t, TDI_TEST_READ, T_1,
		     map.addr, PAGE);
	ASSERT_EQ(0, ioctl(self->t->fd, TDI_TEST_SET_MASTER,
			   TDI_TEST_MASTER_SET));
	if (!self->m.bme_clear_is_error) {
		test_state(RUN, &self->m, self->t);
		test_roundtrip(self->t, &map, TWO_PAGES, T_1);
		test_unmap(self->t, &map);
		return;
	}
	test_state(ERROR, &self->m, self->t);
	test_err_dma(TDI_STATE, &self->m, self->t, TDI_TEST_READ, T_1, map.addr,
		     PAGE);
	EXPECT_TRUE(maps_fail(self->t));
	test_unmap(self->t, &map);
	test_live(0, self->t);
	test_no_mismatch(self->t);
	test_only_unlock_helps(&self->m, self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &again);
	test_roundtrip(self->t, &again, TWO_PAGES, T_1);
}

/* 31 */
TEST_F(trusted, error_event)
{
	static const __u32 entries[] = { TDI_TEST_PHYS, TDI_TEST_SG,
					 TDI_TEST_COHERENT, TDI_TEST_POOL };
	struct tdi_test_map map[ARRAY_SIZE(entries)];
	long splats = kernel_splats();
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(entries); i++)
		test_map(self->t, entries[i], 0, 0, &map[i]);
	ASSERT_EQ(0, platform_simple(&self->m, self->t, CMD_SET_ERROR));
	test_state(ERROR, &self->m, self->t);
	test_err_dma(TDI_STATE, &self->m, self->t, TDI_TEST_READ, T_1,
		     map[0].addr, PAGE);
	EXPECT_TRUE(maps_fail(self->t));
	for (i = 0; i < ARRAY_SIZE(entries); i++)
		test_unmap(self->t, &map[i]);
	test_live(0, self->t);
	test_no_mismatch(self->t);
	EXPECT_EQ(splats, kernel_splats());
	test_only_unlock_helps(&self->m, self->t);
}

/* The same, but the driver is unbound with its mappings still there */
TEST_F(trusted, error_unbind)
{
	struct tdi_test_map map;
	long splats = kernel_splats();

	test_map(self->t, TDI_TEST_MANAGED, 0, TWO_PAGES, &map);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	ASSERT_EQ(0, platform_simple(&self->m, self->t, CMD_SET_ERROR));
	test_only_unlock_helps(&self->m, self->t);
	test_live(0, self->t);
	EXPECT_EQ(splats, kernel_splats());
}

#define PM_STATE "/sys/power/state"
#define PM_TEST "/sys/power/pm_test"
#define PM_TEST_DELAY "/sys/module/suspend/parameters/pm_test_delay"

/* To where all devices sleep, before an image is made if it is one, and back at once */
static int sleep_devices(const char *state)
{
	char delay[16];
	int rc = read_text(PM_TEST_DELAY, delay, sizeof(delay));

	if (!rc)
		rc = write_text(PM_TEST_DELAY, "0");
	if (rc)
		return rc;
	rc = write_text(PM_TEST, "platform");
	if (!rc)
		rc = write_text(PM_STATE, state);
	write_text(PM_TEST, "none");
	return write_text(PM_TEST_DELAY, delay) ?: rc;
}

BOUND_FIXTURE(asleep, NEED_ALL, RUN, "tcb")

FIXTURE_VARIANT(asleep)
{
	const char *state;
	const char *option;
};

FIXTURE_VARIANT_ADD(asleep, suspend)
{
	.state = "freeze", .option = "CONFIG_SUSPEND"
};

/* All memory is from before, and says that the device is trusted */
FIXTURE_VARIANT_ADD(asleep, hibernate)
{
	.state = "disk", .option = "CONFIG_HIBERNATION"
};

/* 32: who knows what became of the device meanwhile */
TEST_F(asleep, trust_is_dropped)
{
	struct tdi_test_map map, again;
	long splats = kernel_splats();
	char states[TEXT_LEN];

	read_text(PM_STATE, states, sizeof(states));
	if (access(PM_TEST, F_OK) || !strstr(states, variant->state))
		SKIP(return, "needs CONFIG_PM_DEBUG and %s", variant->option);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_roundtrip(self->t, &map, TWO_PAGES, T_1);
	ASSERT_EQ(0, sleep_devices(variant->state));
	test_dma_enabled(0, &self->m, self->t);
	ASSERT_EQ(0, ioctl(self->t->fd, TDI_TEST_SET_MASTER,
			   TDI_TEST_MASTER_SET));
	/* The kernel clears bus mastering on its way */
	test_err_dma(self->m.bme_clear_is_error ? TDI_STATE : DMA_DISABLED,
		     &self->m, self->t, TDI_TEST_READ, T_1, map.addr, PAGE);
	EXPECT_TRUE(maps_fail(self->t));
	test_unmap(self->t, &map);
	test_live(0, self->t);
	test_no_mismatch(self->t);

	test_unbind(self->t);
	EXPECT_EQ(-EIO, tdi_accept(self->t));
	EXPECT_EQ(-EBUSY, tdi_lock(&self->m, self->t));
	ASSERT_EQ(0, tdi_unlock(&self->m, self->t));
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(1, self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &again);
	test_roundtrip(self->t, &again, TWO_PAGES, T_1);
	EXPECT_EQ(splats, kernel_splats());
}

/* 32 */
TEST_F(trusted, flr_run)
{
	struct tdi_test_map map;
	long splats = kernel_splats();

	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_roundtrip(self->t, &map, TWO_PAGES, T_1);
	ASSERT_EQ(0, tdi_write(self->t, "reset", "1"));
	test_dma_enabled(0, &self->m, self->t);
	ASSERT_EQ(0, ioctl(self->t->fd, TDI_TEST_SET_MASTER,
			   TDI_TEST_MASTER_SET));
	test_err_dma(TDI_STATE, &self->m, self->t, TDI_TEST_READ, T_1, map.addr,
		     PAGE);
	EXPECT_TRUE(maps_fail(self->t));
	test_unmap(self->t, &map);
	test_no_mismatch(self->t);
	EXPECT_EQ(splats, kernel_splats());
	test_only_unlock_helps(&self->m, self->t);
}

/* 32, without a driver: the next one gets no private DMA, whatever the trust level */
TEST_F(commands, flr_unbound)
{
	struct tdi_test_map map;
	char state[16];

	test_to(&self->m, self->t, RUN, "tcb");
	ASSERT_EQ(0, tdi_write(self->t, "reset", "1"));
	test_state(ERROR, &self->m, self->t);
	ASSERT_EQ(0, tdi_read(self->t, "tsm/state", state, sizeof(state)));
	EXPECT_STREQ("error", state);
	test_err_quiet(-EIO, &self->m, self->t, tdi_accept(self->t));
	test_bind(self->t);
	test_private(0, self->t);
	test_dma_enabled(0, &self->m, self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_target(&self->m, self->t, &map, 0, 1, true);
	test_unmap(self->t, &map);
	test_only_unlock_helps(&self->m, self->t);
}

/* Taken from the bus with a driver bound: not locked any more when it is back */
TEST_F(trusted, remove_run)
{
	struct tdi_test_map map;
	char name[32];
	long splats = kernel_splats();

	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	ASSERT_EQ(0, tdi_remove(self->t));
	test_dma_enabled(0, &self->m, self->t);
	test_state(UNLOCKED, &self->m, self->t);
	ASSERT_EQ(0, bus_rescan());
	ASSERT_EQ(0, tdi_read(self->t, "tsm/lock", name, sizeof(name)));
	EXPECT_STREQ("", name);
	ASSERT_EQ(0, tdi_reset(&self->m, self->t));
	test_bind(self->t);
	test_private(0, self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_target(&self->m, self->t, &map, 0, 1, true);
	test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);
	EXPECT_EQ(splats, kernel_splats());
}

/*
 * The IOMMU refuses the domain that the device should get back when its binding
 * ends: the next driver, which is not trusted, has DMA that works all the same.
 */
TEST_F(trusted, domain_not_taken_back)
{
	struct tdi_test_map map;

	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_ATTACH_TABLE,
				     INJECT_ERROR, RESULT_FAILED, 1));
	test_unbind(self->t);
	/* Where the domain stays the same, nobody asked */
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_ATTACH_TABLE,
				     INJECT_CLEAR, 0, 0));
	ASSERT_EQ(0, tdi_unlock(&self->m, self->t));
	test_bind(self->t);
	test_private(0, self->t);
	test_dma_enabled(0, &self->m, self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_target(&self->m, self->t, &map, 0, 1, true);
	test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);
	test_unmap(self->t, &map);
}

/* ERROR before anybody accepted */
TEST_F(commands, error_locked)
{
	test_to(&self->m, self->t, LOCKED, "tcb");
	ASSERT_EQ(0, platform_simple(&self->m, self->t, CMD_SET_ERROR));
	EXPECT_GT(0, tdi_accept(self->t));
	test_state(ERROR, &self->m, self->t);
	test_bind(self->t);
	test_private(0, self->t);
	test_dma_enabled(0, &self->m, self->t);
}

/* A security processor that never answers costs time, and nothing else */
TEST_F(commands, no_answer)
{
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_LOCK,
				     INJECT_NO_ANSWER, 0, 1));
	EXPECT_EQ(-ETIMEDOUT, tdi_lock(&self->m, self->t));
	test_state(UNLOCKED, &self->m, self->t);
	test_to(&self->m, self->t, LOCKED, "auto");
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_RUN,
				     INJECT_NO_ANSWER, 0, 1));
	EXPECT_EQ(-ETIMEDOUT, tdi_accept(self->t));
	test_state(LOCKED, &self->m, self->t);
	EXPECT_EQ(0, tdi_unlock(&self->m, self->t));
}

/* An answer that is late is an answer */
TEST_F(commands, delay)
{
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_LOCK, INJECT_DELAY,
				     100, 1));
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_RUN, INJECT_DELAY,
				     100, 1));
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(1, self->t);
}

/* What is no DMA at all is no fault of a TLP */
TEST_F(commands, bad_descriptor)
{
	struct tdi_test_dma dma;

	test_bind(self->t);
	ASSERT_EQ(0, tdi_dma_at(self->t, TDI_TEST_READ, TDI_TEST_T_0, 0, 0,
				&dma));
	EXPECT_EQ(BAD_LENGTH, dma.reason);
	ASSERT_EQ(0, tdi_dma_at(self->t, TDI_TEST_READ, TDI_TEST_T_0, 0,
				4ULL << 30, &dma));
	EXPECT_EQ(BAD_LENGTH, dma.reason);
	ASSERT_EQ(0, tdi_dma_at(self->t, 15, TDI_TEST_T_0, 0, PAGE, &dma));
	EXPECT_EQ(BAD_DESCRIPTOR, dma.reason);
}

/* The end of a transfer, told by an interrupt */
TEST_F(commands, interrupt)
{
	struct tdi_test_info before, after;
	struct tdi_test_map map;
	struct tdi_test_dma dma = {
		.op = TDI_TEST_READ,
		.target_slot = TDI_TEST_NO_SLOT,
		.flags = TDI_TEST_DMA_IRQ,
		.length = PAGE,
	};

	test_bind(self->t);
	ASSERT_EQ(0, tdi_info(self->t, &before));
	if (!before.vectors)
		SKIP(return, "no MSI-X");
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	dma.slot = map.slot;
	for (dma.vector = 0; dma.vector < before.vectors; dma.vector++) {
		dma.iova = 0;
		ASSERT_EQ(0, tdi_dma(self->t, &dma));
		EXPECT_EQ(NONE, dma.reason);
	}
	ASSERT_EQ(0, tdi_info(self->t, &after));
	EXPECT_EQ(before.interrupts + before.vectors, after.interrupts);
	test_unmap(self->t, &map);
}

/* Garbage in every register of the engine: the device answers, the kernel lives */
TEST_F(commands, garbage_registers)
{
	struct tdi_test_map map;
	__u32 offset, value, seed = 1;
	int i;

	test_bind(self->t);
	for (i = 0; i < 4; i++) {
		for (offset = 0; offset < 0x200; offset += 4) {
			/* The doorbell would start what was written */
			if (offset == 0x100)
				continue;
			seed = seed * 1664525 + 1013904223;
			value = seed;
			ASSERT_EQ(0, tdi_reg(self->t, offset, true, &value));
		}
	}
	test_map(self->t, TDI_TEST_PHYS, 0, TWO_PAGES, &map);
	test_roundtrip(self->t, &map, TWO_PAGES, TDI_TEST_T_DRIVER);
	test_unmap(self->t, &map);
}

TEST_HARNESS_MAIN
