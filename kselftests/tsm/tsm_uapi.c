// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest side ABI of PCI/TSM: tsm/lock, tsm/accept, tsm/unlock and the trust
 * level of a TDI, in the order of the catalogue. What a refusal must not have
 * changed is asked of the security processor. A TSM that goes is in tsm_gone.c.
 */
#include <dirent.h>
#include <errno.h>

#include "../kselftest_harness.h"
#include "tsm_test.h"

#define CLASS "/sys/class/tsm"

MACHINE_FIXTURE(uapi, NEED_ALL)

/* 1: who has no TEE bit has no attributes. The ports of the platform have none. */
TEST_F(uapi, visible_needs_tee)
{
	struct dirent *entry;
	int others = 0;
	DIR *dir;

	EXPECT_TRUE(tdi_has(self->t, "tsm/lock"));
	EXPECT_TRUE(tdi_has(self->t, "tsm/accept"));
	EXPECT_TRUE(tdi_has(self->t, "tsm/unlock"));

	dir = opendir("/sys/bus/pci/devices");
	ASSERT_NE(NULL, dir);
	while ((entry = readdir(dir))) {
		struct tdi other = {};
		char id[16];

		snprintf(other.bdf, sizeof(other.bdf), "%.15s", entry->d_name);
		if (tdi_read(&other, "device", id, sizeof(id)) ||
		    !strcmp(id, "0x0dee"))
			continue;
		others++;
		EXPECT_FALSE(tdi_has(&other, "tsm/lock"))
		{
			TH_LOG("%s", other.bdf);
		}
		EXPECT_FALSE(tdi_has(&other, "tsm/accept"));
	}
	closedir(dir);
	EXPECT_LT(0, others);
}

/* 3 */
TEST_F(uapi, lock_ok)
{
	char name[32];

	ASSERT_EQ(0, tdi_read(self->t, "tsm/lock", name, sizeof(name)));
	EXPECT_STREQ("", name);
	test_state(UNLOCKED, &self->m, self->t);

	EXPECT_EQ(0, tdi_lock(&self->m, self->t));
	ASSERT_EQ(0, tdi_read(self->t, "tsm/lock", name, sizeof(name)));
	EXPECT_STREQ(self->m.tsm, name);
	test_state(LOCKED, &self->m, self->t);
	test_dma_enabled(0, &self->m, self->t);

	EXPECT_EQ(0, tdi_unlock(&self->m, self->t));
	ASSERT_EQ(0, tdi_read(self->t, "tsm/lock", name, sizeof(name)));
	EXPECT_STREQ("", name);
	test_state(UNLOCKED, &self->m, self->t);
}

/* A TSM for links, if the machine has one */
static bool find_link_tsm(char *name, size_t size)
{
	struct dirent *entry;
	bool found = false;
	DIR *dir = opendir(CLASS);

	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		char path[TEXT_LEN], mode[16];

		snprintf(path, sizeof(path), CLASS "/%.32s/pci_mode",
			 entry->d_name);
		found = !read_text(path, mode, sizeof(mode)) &&
			!strcmp(mode, "link");
		if (found)
			snprintf(name, size, "%.31s", entry->d_name);
	}
	closedir(dir);
	return found;
}

/* 4 */
TEST_F(uapi, lock_bad)
{
	static const struct {
		const char *text;
		int error;
	} bad[] = {
		{ "foo", EINVAL },    { "tsm", EINVAL },   { "tsm-1", EINVAL },
		{ "tsm0x", EINVAL },  { "tsm999", ENXIO }, { "\n", EINVAL },
		{ "tsm99999999999", EINVAL },
	};
	__u64 generation = platform_generation(&self->m, self->t);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		test_err_quiet(-bad[i].error, &self->m, self->t,
			       tdi_write(self->t, "tsm/lock", bad[i].text));
		test_untouched(&self->m, self->t, UNLOCKED, generation);
	}
}

/* 4, the last of it: a TSM for links, which the test driver registers */
TEST_F(uapi, lock_link_tsm)
{
	__u64 generation = platform_generation(&self->m, self->t);
	char link[32], name[32];

	ASSERT_EQ(0, ioctl(self->m.control, TDI_TEST_LINK_TSM, 1));
	EXPECT_TRUE(find_link_tsm(link, sizeof(link)));
	test_err_quiet(-ENXIO, &self->m, self->t,
		       tdi_write(self->t, "tsm/lock", link));
	test_untouched(&self->m, self->t, UNLOCKED, generation);

	/* It comes and goes, and what the other kind locked stays */
	test_to(&self->m, self->t, RUN, "auto");
	generation = platform_generation(&self->m, self->t);
	test_err_quiet(-EINVAL, &self->m, self->t,
		       tdi_write(self->t, "tsm/unlock", link));
	EXPECT_EQ(0, ioctl(self->m.control, TDI_TEST_LINK_TSM, 0));
	EXPECT_FALSE(find_link_tsm(link, sizeof(link)));
	ASSERT_EQ(0, tdi_read(self->t, "tsm/lock", name, sizeof(name)));
	EXPECT_STREQ(self->m.tsm, name);
	test_untouched(&self->m, self->t, RUN, generation);
}

/* 5 */
TEST_F(uapi, lock_twice)
{
	__u64 generation;

	test_to(&self->m, self->t, LOCKED, "auto");
	generation = platform_generation(&self->m, self->t);
	test_err_quiet(-EBUSY, &self->m, self->t, tdi_lock(&self->m, self->t));
	test_untouched(&self->m, self->t, LOCKED, generation);

	EXPECT_EQ(0, tdi_accept(self->t));
	test_err_quiet(-EBUSY, &self->m, self->t, tdi_lock(&self->m, self->t));
	test_untouched(&self->m, self->t, RUN, generation);
}

/* 6: in any state, all of it is refused while a driver is bound */
FIXTURE(bound)
{
	struct machine m;
	struct tdi *t;
};

FIXTURE_VARIANT(bound)
{
	enum tdi_state state;
};

FIXTURE_VARIANT_ADD(bound, UNLOCKED)
{
	.state = UNLOCKED
};
FIXTURE_VARIANT_ADD(bound, LOCKED)
{
	.state = LOCKED
};
FIXTURE_VARIANT_ADD(bound, RUN)
{
	.state = RUN
};

FIXTURE_SETUP(bound)
{
	MACHINE_SETUP(NEED_ALL);
	test_to(&self->m, self->t, variant->state, "auto");
	test_bind(self->t);
}

MACHINE_TEARDOWN(bound)

TEST_F(bound, lock_bound)
{
	__u64 generation = platform_generation(&self->m, self->t);

	test_err_quiet(-EBUSY, &self->m, self->t, tdi_lock(&self->m, self->t));
	test_untouched(&self->m, self->t, (int)variant->state, generation);
}

TEST_F(bound, accept_bound)
{
	__u64 generation = platform_generation(&self->m, self->t);

	test_err_quiet(-EBUSY, &self->m, self->t, tdi_accept(self->t));
	test_untouched(&self->m, self->t, (int)variant->state, generation);
}

TEST_F(bound, unlock_bound)
{
	__u64 generation = platform_generation(&self->m, self->t);

	test_err_quiet(-EBUSY, &self->m, self->t, tdi_unlock(&self->m, self->t));
	test_untouched(&self->m, self->t, (int)variant->state, generation);
}

TEST_F(bound, trust_bound)
{
	static const char *const levels[] = { "none", "adversary", "auto",
					      "tcb" };
	__u64 generation = platform_generation(&self->m, self->t);
	char level[16];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(levels); i++) {
		test_err_quiet(-EBUSY, &self->m, self->t,
			       tdi_trust(self->t, levels[i]));
	}
	ASSERT_EQ(0, tdi_read(self->t, "trust", level, sizeof(level)));
	EXPECT_STREQ("auto", level);
	test_private(0, self->t);
	test_untouched(&self->m, self->t, (int)variant->state, generation);
}

/* 7 */
TEST_F(uapi, accept_unlocked)
{
	__u64 generation = platform_generation(&self->m, self->t);

	test_err_quiet(-EINVAL, &self->m, self->t, tdi_accept(self->t));
	test_untouched(&self->m, self->t, UNLOCKED, generation);
}

/* 8 */
TEST_F(uapi, accept_zero)
{
	static const char *const bad[] = { "0", "n", "off", "2" };
	__u64 generation;
	unsigned int i;

	test_to(&self->m, self->t, LOCKED, "auto");
	generation = platform_generation(&self->m, self->t);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		test_err_quiet(-EINVAL, &self->m, self->t,
			       tdi_write(self->t, "tsm/accept", bad[i]));
		test_untouched(&self->m, self->t, LOCKED, generation);
	}
}

/* 9: the second time no RUN is sent */
TEST_F(uapi, accept_twice)
{
	__u64 generation;

	test_to(&self->m, self->t, LOCKED, "auto");
	generation = platform_generation(&self->m, self->t);
	EXPECT_EQ(0, tdi_accept(self->t));
	test_untouched(&self->m, self->t, RUN, generation);

	test_err_quiet(0, &self->m, self->t, tdi_accept(self->t));
	test_untouched(&self->m, self->t, RUN, generation);
}

/* 10 */
TEST_F(uapi, unlock_wrong_tsm)
{
	static const char *const bad[] = { "tsm999", "foo", "\n" };
	__u64 generation;
	unsigned int i;

	test_err_quiet(-EINVAL, &self->m, self->t, tdi_unlock(&self->m, self->t));
	test_to(&self->m, self->t, LOCKED, "auto");
	generation = platform_generation(&self->m, self->t);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		test_err_quiet(-EINVAL, &self->m, self->t,
			       tdi_write(self->t, "tsm/unlock", bad[i]));
		test_untouched(&self->m, self->t, LOCKED, generation);
	}
}

/* 11 */
TEST_F(uapi, run_fails)
{
	__u64 generation;

	test_to(&self->m, self->t, LOCKED, "tcb");
	generation = platform_generation(&self->m, self->t);
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_RUN, INJECT_ERROR,
				     RESULT_FAILED, 1));
	EXPECT_EQ(-EIO, tdi_accept(self->t));
	test_untouched(&self->m, self->t, LOCKED, generation);

	/* A driver gets untrusted DMA, and accept works once it may */
	test_bind(self->t);
	test_private(0, self->t);
	test_unbind(self->t);
	EXPECT_EQ(0, tdi_unlock(&self->m, self->t));
	test_to(&self->m, self->t, RUN, "tcb");
}

/* A lock that fails leaves nothing behind */
TEST_F(uapi, lock_fails)
{
	char name[32];

	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_LOCK, INJECT_ERROR,
				     RESULT_FAILED, 1));
	EXPECT_EQ(-EIO, tdi_lock(&self->m, self->t));
	ASSERT_EQ(0, tdi_read(self->t, "tsm/lock", name, sizeof(name)));
	EXPECT_STREQ("", name);
	test_state(UNLOCKED, &self->m, self->t);
	test_to(&self->m, self->t, RUN, "tcb");
}

/* -EPERM is for groups that a driver owns */
#define test_not_owned(t)                                                     \
	do {                                                                  \
		if (tdi_has(t, "iommu_group/type")) {                         \
			EXPECT_NE(-EPERM, tdi_write(t, "iommu_group/type",    \
						    "auto"));                 \
		}                                                             \
	} while (0)

/* 12: no probe(), the group is not owned, and binding works once DMA does */
TEST_F(uapi, enable_dma_fails)
{
	struct tdi_test_probe probe;

	test_to(&self->m, self->t, RUN, "tcb");
	ASSERT_EQ(0, probe_mode(&self->m, self->t, 0));
	ASSERT_EQ(0, platform_inject(&self->m, self->t, CMD_ENABLE_DMA,
				     INJECT_ERROR, RESULT_FAILED, 1));
	EXPECT_EQ(-EIO, tdi_bind(self->t));
	EXPECT_FALSE(tdi_is_bound(self->t));
	ASSERT_EQ(0, probe_result(&self->m, self->t, &probe));
	EXPECT_EQ(0, probe.probes);
	test_dma_enabled(0, &self->m, self->t);
	test_state(RUN, &self->m, self->t);
	test_not_owned(self->t);

	test_bind(self->t);
	test_private(1, self->t);
	test_dma_enabled(1, &self->m, self->t);
}

/* Private DMA ends with the driver, and not only because the TDI fell to ERROR */
TEST_F(uapi, unbind_ends_private_dma)
{
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_dma_enabled(1, &self->m, self->t);
	test_unbind(self->t);
	test_dma_enabled(0, &self->m, self->t);
	if (!self->m.bme_clear_is_error) {
		test_state(RUN, &self->m, self->t);
	}
}

/* The trust level reads back, and takes nothing else */
TEST_F(uapi, trust_levels)
{
	static const char *const levels[] = { "none", "adversary", "auto",
					      "tcb", "unset" };
	char level[16];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(levels); i++) {
		EXPECT_EQ(0, tdi_trust(self->t, levels[i]));
		ASSERT_EQ(0, tdi_read(self->t, "trust", level, sizeof(level)));
		EXPECT_STREQ(levels[i], level);
	}
	EXPECT_EQ(-EINVAL, tdi_trust(self->t, "friend"));
	EXPECT_EQ(-EINVAL, tdi_trust(self->t, "\n"));
	ASSERT_EQ(0, tdi_read(self->t, "trust", level, sizeof(level)));
	EXPECT_STREQ("unset", level);
	test_state(UNLOCKED, &self->m, self->t);
}

/* Each lock has a generation of its own */
TEST_F(uapi, relock)
{
	__u64 first, second;
	int i;

	for (i = 0; i < 3; i++) {
		test_to(&self->m, self->t, RUN, "auto");
		first = platform_generation(&self->m, self->t);
		EXPECT_EQ(0, tdi_unlock(&self->m, self->t));
		test_state(UNLOCKED, &self->m, self->t);
		test_to(&self->m, self->t, LOCKED, "auto");
		second = platform_generation(&self->m, self->t);
		EXPECT_NE(first, second);
		EXPECT_EQ(0, tdi_unlock(&self->m, self->t));
	}
}

TEST_HARNESS_MAIN
