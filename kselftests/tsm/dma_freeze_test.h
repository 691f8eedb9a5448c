/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * ioctls of /dev/dma_freeze_test, the same as in kernel/dma/freeze_test.h.  A
 * copy, so that the tests build for kernels without it and skip there.
 */
#ifndef _SELFTEST_DMA_FREEZE_TEST_H
#define _SELFTEST_DMA_FREEZE_TEST_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The ways to make a mapping */
enum dma_freeze_test_entry {
	DMA_FREEZE_TEST_PHYS,
	DMA_FREEZE_TEST_MMIO,
	DMA_FREEZE_TEST_CC_SHARED,
	DMA_FREEZE_TEST_PAGE,
	DMA_FREEZE_TEST_SINGLE,
	DMA_FREEZE_TEST_RESOURCE,
	DMA_FREEZE_TEST_SG,
	DMA_FREEZE_TEST_SGTABLE,
	DMA_FREEZE_TEST_COHERENT,
	DMA_FREEZE_TEST_MANAGED,
	DMA_FREEZE_TEST_PAGES,
	DMA_FREEZE_TEST_NONCONTIGUOUS,
	DMA_FREEZE_TEST_POOL,
	DMA_FREEZE_TEST_IOVA_DESTROY,
	DMA_FREEZE_TEST_IOVA_UNLINK,
	DMA_FREEZE_TEST_NR_ENTRIES,
};

/**
 * struct dma_freeze_test_map - make or undo a mapping
 * @entry: in, enum dma_freeze_test_entry (DMA_FREEZE_TEST_MAP)
 * @slot: handle of a successful mapping; U32_MAX if it failed
 * @size: in, bytes to allocate, for entries that allocate memory; 0 is a page
 * @ret: out, what the entry point returned: the DMA address, the number of
 *	 entries of dma_map_sg(), the result of dma_map_sgtable(), or 1 for a
 *	 pointer and 0 for NULL
 */
struct dma_freeze_test_map {
	__u32 entry;
	__u32 slot;
	__aligned_u64 size;
	__s64 ret;
};

/**
 * struct dma_freeze_test_info - state of the device
 * @live: dma_live_mappings()
 * @iommu_dma: 1 if the device uses an IOMMU for the DMA API
 * @dma_debug: 1 if dma-debug is built in
 * @name: name of the device
 */
struct dma_freeze_test_info {
	__s64 live;
	__u32 iommu_dma;
	__u32 dma_debug;
	char name[64];
};

#define DMA_FREEZE_TEST_RACE_IRQ	0x1 /* map in hard interrupts, too */

/**
 * struct dma_freeze_test_race - freeze while others map and unmap
 * @entry: in, enum dma_freeze_test_entry
 * @flags: in, DMA_FREEZE_TEST_RACE_*
 * @threads: in, number of mapping threads, 1 to 16
 * @ms: in, duration in milliseconds, up to 10000
 * @frozen: out, number of freezes that succeeded
 * @busy: out, number of freezes that failed with -EBUSY
 * @errors: out, number of freezes that failed otherwise
 * @mapped: out, number of successful maps
 * @refused: out, number of failed maps
 * @violations: out, mappings seen alive while the device was frozen
 * @live_while_frozen: out, how often dma_live_mappings() of the frozen device
 *		       was not 0
 */
struct dma_freeze_test_race {
	__u32 entry;
	__u32 flags;
	__u32 threads;
	__u32 ms;
	__aligned_u64 frozen;
	__aligned_u64 busy;
	__aligned_u64 errors;
	__aligned_u64 mapped;
	__aligned_u64 refused;
	__aligned_u64 violations;
	__aligned_u64 live_while_frozen;
};

#define DMA_FREEZE_TEST_IOC 0xdf

/* Take the PCI device bound to the driver for this file, before all others */
#define DMA_FREEZE_TEST_USE_PCI		_IO(DMA_FREEZE_TEST_IOC, 0)
#define DMA_FREEZE_TEST_INFO		_IOR(DMA_FREEZE_TEST_IOC, 1, \
					     struct dma_freeze_test_info)
#define DMA_FREEZE_TEST_MAP		_IOWR(DMA_FREEZE_TEST_IOC, 2, \
					      struct dma_freeze_test_map)
#define DMA_FREEZE_TEST_UNMAP		_IOW(DMA_FREEZE_TEST_IOC, 3, \
					     struct dma_freeze_test_map)
#define DMA_FREEZE_TEST_FREEZE		_IO(DMA_FREEZE_TEST_IOC, 4)
#define DMA_FREEZE_TEST_UNFREEZE	_IO(DMA_FREEZE_TEST_IOC, 5)
#define DMA_FREEZE_TEST_STRAY_UNMAP	_IO(DMA_FREEZE_TEST_IOC, 6)
#define DMA_FREEZE_TEST_RACE		_IOWR(DMA_FREEZE_TEST_IOC, 7, \
					      struct dma_freeze_test_race)

#endif /* _SELFTEST_DMA_FREEZE_TEST_H */
