// SPDX-License-Identifier: GPL-2.0-only
/*
 * Accounting and freezing of DMA mappings: dma_freeze(), dma_unfreeze() and
 * dma_live_mappings(), over every entry point of the DMA API.
 *
 * The mappings are made by the test device of CONFIG_DMA_FREEZE_TEST.  No
 * particular hardware is required.  The *_pci variants use a PCI device, with
 * an IOMMU if the machine has one.  They skip unless a device that nobody
 * needs was bound to the driver of the test before:
 *
 *   echo dma_freeze_test > /sys/bus/pci/devices/<BDF>/driver_override
 *   echo <BDF> > /sys/bus/pci/drivers_probe
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "dma_freeze_test.h"

#define DEVICE "/dev/dma_freeze_test"
#define TABLE "/sys/kernel/debug/dma-freeze/devices"

#define MAPPING_ERROR (-1LL) /* DMA_MAPPING_ERROR */
#define NO_SLOT (~0U)

/* More than any machine has in one piece */
#define HUGE_ALLOC (1ULL << 40)

/* One race, and the longer ones: some hundred freezes even on a slow machine */
#define RACE_MS 300
#define RACE_TRIES 10
#define LONG_RACE_MS 2000

/*
 * Plain call: 0 or -errno of the ioctl. The result of the entry point itself
 * goes to @ret.
 */
static int _test_map(int fd, __u32 entry, __u64 size, __u32 *slot, __s64 *ret)
{
	struct dma_freeze_test_map req = {
		.entry = entry,
		.size = size,
	};

	if (ioctl(fd, DMA_FREEZE_TEST_MAP, &req))
		return -errno;
	*slot = req.slot;
	*ret = req.ret;
	return 0;
}

static int _test_unmap(int fd, __u32 slot)
{
	struct dma_freeze_test_map req = { .slot = slot };

	return ioctl(fd, DMA_FREEZE_TEST_UNMAP, &req) ? -errno : 0;
}

static int _test_call(int fd, unsigned long cmd)
{
	return ioctl(fd, cmd) ? -errno : 0;
}

static __s64 _test_live(int fd)
{
	struct dma_freeze_test_info info;

	return ioctl(fd, DMA_FREEZE_TEST_INFO, &info) ? -errno : info.live;
}

/* A mapping that has to succeed */
#define test_map(fd, entry, slot)                                             \
	({                                                                    \
		__s64 _ret = 0;                                               \
		ASSERT_EQ(0, _test_map(fd, entry, 0, slot, &_ret));           \
		ASSERT_NE(NO_SLOT, *(slot))                                   \
		{                                                             \
			TH_LOG("map by entry %u failed: %lld", entry,         \
			       (long long)_ret);                              \
		}                                                             \
	})

/* A mapping that has to fail, with the entry point's result @result */
#define test_err_map(result, fd, entry, size)                                 \
	({                                                                    \
		__u32 _slot = 0;                                              \
		__s64 _ret = 0;                                               \
		ASSERT_EQ(0, _test_map(fd, entry, size, &_slot, &_ret));      \
		EXPECT_EQ(NO_SLOT, _slot);                                    \
		EXPECT_EQ(result, _ret);                                      \
	})

#define test_unmap(fd, slot) ASSERT_EQ(0, _test_unmap(fd, slot))
#define test_freeze(fd) ASSERT_EQ(0, _test_call(fd, DMA_FREEZE_TEST_FREEZE))
#define test_err_freeze(err, fd)                                              \
	EXPECT_EQ(-(err), _test_call(fd, DMA_FREEZE_TEST_FREEZE))
#define test_unfreeze(fd)                                                     \
	ASSERT_EQ(0, _test_call(fd, DMA_FREEZE_TEST_UNFREEZE))
#define test_live(expected, fd) EXPECT_EQ(expected, _test_live(fd))

/* Why the tests cannot run here, or NULL */
static const char *missing(int *fd)
{
	*fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (*fd >= 0)
		return NULL;
	if (geteuid())
		return "not root";
	if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
		return "no " DEVICE ": kernel without CONFIG_DMA_FREEZE_TEST";
	return "";
}

#define OPEN_OR_SKIP(fd)                                                      \
	do {                                                                  \
		const char *_why = missing(&(fd));                            \
		if (_why && *_why)                                            \
			SKIP(return, "%s", _why);                             \
		ASSERT_LE(0, (fd))                                            \
		{                                                             \
			TH_LOG("open " DEVICE ": %s", strerror(errno));       \
		}                                                             \
	} while (0)

/* The line of the device in the table in debugfs */
struct table_line {
	char state[16];
	long live;
	long mismatches;
	char bus[32];
	char name[64];
};

/* 1 if found, 0 if not, -errno if there is no table */
static int find_line(const char *name, struct table_line *line)
{
	char text[256];
	int found = 0;
	FILE *f;

	f = fopen(TABLE, "re");
	if (!f)
		return -errno;
	while (!found && fgets(text, sizeof(text), f)) {
		if (sscanf(text, "%15s %ld %ld %31s %63[^\n]", line->state,
			   &line->live, &line->mismatches, line->bus,
			   line->name) != 5) {
			fclose(f);
			return -EPROTO;
		}
		found = !strcmp(line->name, name);
	}
	fclose(f);
	return found;
}

/* What each way to make a mapping returns when it fails, and what it needs */
FIXTURE(entry)
{
	int fd;
	struct dma_freeze_test_info info;
};

FIXTURE_VARIANT(entry)
{
	__u32 entry;
	__s64 error;
	bool pci;
	bool allocates;
	bool iova;
	bool cc_shared;
};

#define ENTRY(name, id, err, ...)                                             \
	FIXTURE_VARIANT_ADD(entry, name)                                      \
	{                                                                     \
		.entry = id, .error = err, ##__VA_ARGS__                      \
	};                                                                    \
	FIXTURE_VARIANT_ADD(entry, name##_pci)                                \
	{                                                                     \
		.entry = id, .error = err, .pci = true, ##__VA_ARGS__         \
	}

/* clang-format off */
ENTRY(phys, DMA_FREEZE_TEST_PHYS, MAPPING_ERROR);
ENTRY(mmio, DMA_FREEZE_TEST_MMIO, MAPPING_ERROR);
ENTRY(cc_shared, DMA_FREEZE_TEST_CC_SHARED, MAPPING_ERROR, .cc_shared = true);
ENTRY(page, DMA_FREEZE_TEST_PAGE, MAPPING_ERROR);
ENTRY(single, DMA_FREEZE_TEST_SINGLE, MAPPING_ERROR);
ENTRY(resource, DMA_FREEZE_TEST_RESOURCE, MAPPING_ERROR);
ENTRY(sg, DMA_FREEZE_TEST_SG, 0);
ENTRY(sgtable, DMA_FREEZE_TEST_SGTABLE, -EIO);
ENTRY(coherent, DMA_FREEZE_TEST_COHERENT, 0, .allocates = true);
ENTRY(managed, DMA_FREEZE_TEST_MANAGED, 0, .allocates = true);
ENTRY(pages, DMA_FREEZE_TEST_PAGES, 0, .allocates = true);
ENTRY(noncontiguous, DMA_FREEZE_TEST_NONCONTIGUOUS, 0, .allocates = true);
ENTRY(pool, DMA_FREEZE_TEST_POOL, 0);
ENTRY(iova_destroy, DMA_FREEZE_TEST_IOVA_DESTROY, 0, .iova = true);
ENTRY(iova_unlink, DMA_FREEZE_TEST_IOVA_UNLINK, 0, .iova = true);
/* clang-format on */

FIXTURE_SETUP(entry)
{
	self->fd = -1;
	OPEN_OR_SKIP(self->fd);
	if (variant->pci) {
		int rc = _test_call(self->fd, DMA_FREEZE_TEST_USE_PCI);

		if (rc == -ENODEV)
			SKIP(return, "no PCI device bound to dma_freeze_test");
		ASSERT_EQ(0, rc);
	}
	ASSERT_EQ(0, ioctl(self->fd, DMA_FREEZE_TEST_INFO, &self->info));
	ASSERT_EQ(0, self->info.live);
}

FIXTURE_TEARDOWN(entry)
{
	if (self->fd >= 0)
		close(self->fd);
}

#define NEED_MAPPABLE()                                                       \
	do {                                                                  \
		if (variant->iova && !self->info.iommu_dma)                   \
			SKIP(return, "no IOVA API: DMA without IOMMU");       \
		if (variant->cc_shared && self->info.iommu_dma)               \
			SKIP(return, "CC_SHARED unsupported by the IOMMU");   \
	} while (0)

TEST_F(entry, live_mapping_refuses_freeze)
{
	__u32 first = NO_SLOT, second = NO_SLOT;

	NEED_MAPPABLE();
	test_map(self->fd, variant->entry, &first);
	test_live(1, self->fd);

	test_err_freeze(EBUSY, self->fd);
	test_live(1, self->fd);
	test_map(self->fd, variant->entry, &second);
	test_live(2, self->fd);
	test_err_freeze(EBUSY, self->fd);

	test_unmap(self->fd, first);
	test_live(1, self->fd);
	test_err_freeze(EBUSY, self->fd);
	test_unmap(self->fd, second);
	test_live(0, self->fd);
}

TEST_F(entry, frozen_refuses_map)
{
	__u32 slot = NO_SLOT;

	NEED_MAPPABLE();
	test_freeze(self->fd);
	test_err_map(variant->error, self->fd, variant->entry, 0);
	test_live(0, self->fd);

	test_unfreeze(self->fd);
	test_map(self->fd, variant->entry, &slot);
	test_live(1, self->fd);
	test_unmap(self->fd, slot);
	test_live(0, self->fd);

	/* And the whole once more: nothing is left behind */
	test_freeze(self->fd);
	test_err_map(variant->error, self->fd, variant->entry, 0);
	test_unfreeze(self->fd);
}

TEST_F(entry, failed_map_is_not_live)
{
	__u64 size = 0;

	if (variant->allocates && !self->info.iommu_dma)
		size = HUGE_ALLOC;
	else if (!(variant->cc_shared && self->info.iommu_dma) &&
		 !(variant->iova && !self->info.iommu_dma))
		SKIP(return, "no harmless way to make this map fail here");

	test_err_map(variant->error, self->fd, variant->entry, size);
	test_live(0, self->fd);
	test_freeze(self->fd);
	test_unfreeze(self->fd);
}

/* Freezes must succeed and fail: mappings come and go */
TEST_F(entry, race)
{
	unsigned long frozen = 0, busy = 0;
	int i;

	NEED_MAPPABLE();
	for (i = 0; i < RACE_TRIES && (!frozen || !busy); i++) {
		struct dma_freeze_test_race race = {
			.entry = variant->entry,
			.threads = 2,
			.ms = RACE_MS,
		};

		ASSERT_EQ(0, ioctl(self->fd, DMA_FREEZE_TEST_RACE, &race));
		EXPECT_EQ(0, race.violations);
		EXPECT_EQ(0, race.live_while_frozen);
		EXPECT_EQ(0, race.errors);
		EXPECT_LT(0, race.mapped);
		frozen += race.frozen;
		busy += race.busy;
	}
	EXPECT_LT(0, frozen);
	EXPECT_LT(0, busy);
	test_live(0, self->fd);
}

/* What does not depend on the entry point */
FIXTURE(device)
{
	int fd;
	struct dma_freeze_test_info info;
};

FIXTURE_SETUP(device)
{
	self->fd = -1;
	OPEN_OR_SKIP(self->fd);
	ASSERT_EQ(0, ioctl(self->fd, DMA_FREEZE_TEST_INFO, &self->info));
}

FIXTURE_TEARDOWN(device)
{
	if (self->fd >= 0)
		close(self->fd);
}

TEST_F(device, freeze_twice)
{
	test_freeze(self->fd);
	test_err_freeze(EALREADY, self->fd);
	test_err_map(MAPPING_ERROR, self->fd, DMA_FREEZE_TEST_PHYS, 0);

	/* One unfreeze is enough */
	test_unfreeze(self->fd);
	test_freeze(self->fd);
	test_unfreeze(self->fd);
}

TEST_F(device, unfreeze_open_device)
{
	__u32 slot = NO_SLOT;

	test_unfreeze(self->fd);
	test_map(self->fd, DMA_FREEZE_TEST_PHYS, &slot);
	test_unfreeze(self->fd);
	test_live(1, self->fd);
	test_err_freeze(EBUSY, self->fd);
	test_unmap(self->fd, slot);
	test_freeze(self->fd);
}

/* The last mapping decides, whichever it is */
TEST_F(device, all_entries_at_once)
{
	__u32 slots[DMA_FREEZE_TEST_NR_ENTRIES] = {};
	int i, live = 0;

	for (i = 0; i < DMA_FREEZE_TEST_IOVA_DESTROY; i++) {
		test_map(self->fd, i, &slots[i]);
		test_live(++live, self->fd);
	}
	for (i = 0; i < DMA_FREEZE_TEST_IOVA_DESTROY; i++) {
		test_err_freeze(EBUSY, self->fd);
		test_unmap(self->fd, slots[i]);
		test_live(--live, self->fd);
	}
	test_freeze(self->fd);
	for (i = 0; i < DMA_FREEZE_TEST_NR_ENTRIES; i++) {
		__s64 ret;

		ASSERT_EQ(0, _test_map(self->fd, i, 0, &slots[i], &ret));
		EXPECT_EQ(NO_SLOT, slots[i]);
	}
	test_live(0, self->fd);
}

TEST_F(device, other_device_unaffected)
{
	__u32 slot = NO_SLOT;
	int other;

	other = open(DEVICE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, other);

	test_freeze(self->fd);
	test_map(other, DMA_FREEZE_TEST_PHYS, &slot);
	test_live(1, other);
	test_live(0, self->fd);
	test_unfreeze(self->fd);
	test_freeze(self->fd);
	test_unmap(other, slot);
	test_freeze(other);
	EXPECT_EQ(0, close(other));
}

/* Reported once, and nothing is touched: not even the count */
TEST_F(device, stray_unmap_frozen)
{
	struct table_line line;
	__u32 slot = NO_SLOT;
	int i;

	test_freeze(self->fd);
	for (i = 1; i <= 2; i++) {
		ASSERT_EQ(0, _test_call(self->fd, DMA_FREEZE_TEST_STRAY_UNMAP));
		test_live(0, self->fd);
		if (find_line(self->info.name, &line) == 1) {
			EXPECT_EQ(i, line.mismatches);
			EXPECT_STREQ("frozen", line.state);
		}
	}
	test_err_freeze(EALREADY, self->fd);
	test_err_map(MAPPING_ERROR, self->fd, DMA_FREEZE_TEST_PHYS, 0);

	test_unfreeze(self->fd);
	test_map(self->fd, DMA_FREEZE_TEST_PHYS, &slot);
	test_live(1, self->fd);
	test_err_freeze(EBUSY, self->fd);
	test_unmap(self->fd, slot);
	test_freeze(self->fd);
}

/* The count cannot be trusted afterwards: no freeze, but maps still work */
TEST_F(device, stray_unmap_open)
{
	struct table_line line;
	__u32 slot = NO_SLOT;
	int rc;

	rc = _test_call(self->fd, DMA_FREEZE_TEST_STRAY_UNMAP);
	if (rc == -EOPNOTSUPP && self->info.dma_debug)
		SKIP(return, "CONFIG_DMA_API_DEBUG would report it");
	ASSERT_EQ(0, rc);

	test_err_freeze(EBUSY, self->fd);
	if (find_line(self->info.name, &line) == 1) {
		EXPECT_STREQ("broken", line.state);
		EXPECT_EQ(1, line.mismatches);
	}
	/* The sum is 0 now, with a live mapping */
	test_map(self->fd, DMA_FREEZE_TEST_PHYS, &slot);
	test_err_freeze(EBUSY, self->fd);
	test_unmap(self->fd, slot);
	test_err_freeze(EBUSY, self->fd);
}

TEST_F(device, table)
{
	struct table_line line;
	__u32 slot = NO_SLOT;
	int rc;

	rc = find_line(self->info.name, &line);
	if (rc == -ENOENT)
		SKIP(return, "no " TABLE ": debugfs not mounted?");
	ASSERT_EQ(1, rc);
	EXPECT_STREQ("open", line.state);
	EXPECT_STREQ("platform", line.bus);
	EXPECT_EQ(0, line.live);
	EXPECT_EQ(0, line.mismatches);

	test_map(self->fd, DMA_FREEZE_TEST_SG, &slot);
	ASSERT_EQ(1, find_line(self->info.name, &line));
	EXPECT_EQ(1, line.live);
	test_unmap(self->fd, slot);

	test_freeze(self->fd);
	ASSERT_EQ(1, find_line(self->info.name, &line));
	EXPECT_STREQ("frozen", line.state);
	EXPECT_EQ(0, line.live);

	/* The device goes with the file */
	EXPECT_EQ(0, close(self->fd));
	self->fd = -1;
	EXPECT_EQ(0, find_line(self->info.name, &line));
}

/* Maps in threads and hard interrupts; freezes have to succeed now and then */
TEST_F(device, race_irq)
{
	struct dma_freeze_test_race race = {
		.entry = DMA_FREEZE_TEST_PHYS,
		.flags = DMA_FREEZE_TEST_RACE_IRQ,
		.threads = 2,
		.ms = LONG_RACE_MS,
	};

	ASSERT_EQ(0, ioctl(self->fd, DMA_FREEZE_TEST_RACE, &race));
	TH_LOG("%llu maps, %llu refused, %llu freezes, %llu busy", race.mapped,
	       race.refused, race.frozen, race.busy);
	EXPECT_EQ(0, race.violations);
	EXPECT_EQ(0, race.live_while_frozen);
	EXPECT_EQ(0, race.errors);
	EXPECT_LT(0, race.mapped);
	EXPECT_LT(0, race.frozen);
	test_live(0, self->fd);
}

/* A freeze that ends with -EBUSY must not make a concurrent map fail */
TEST_F(device, race_busy)
{
	struct dma_freeze_test_race race = {
		.entry = DMA_FREEZE_TEST_PHYS,
		.flags = DMA_FREEZE_TEST_RACE_IRQ,
		.threads = 2,
		.ms = LONG_RACE_MS,
	};
	__u32 slot = NO_SLOT;

	test_map(self->fd, DMA_FREEZE_TEST_PHYS, &slot);
	ASSERT_EQ(0, ioctl(self->fd, DMA_FREEZE_TEST_RACE, &race));
	TH_LOG("%llu maps, %llu busy", race.mapped, race.busy);
	EXPECT_EQ(0, race.refused);
	EXPECT_EQ(0, race.frozen);
	EXPECT_EQ(0, race.errors);
	EXPECT_LT(0, race.busy);
	EXPECT_LT(0, race.mapped);
	test_live(1, self->fd);
	test_unmap(self->fd, slot);
	test_freeze(self->fd);
}

TEST_HARNESS_MAIN
