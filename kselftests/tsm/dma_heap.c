// SPDX-License-Identifier: GPL-2.0-only
/*
 * 45: buffers of the system heap, private and shared ones, imported by a TDI. They
 * are mapped as what they are, and unmapped with the attributes of the map. Who
 * would notice otherwise: the DMA API where the address tells the attribute, which
 * is with a split (vTOM), and CONFIG_DMA_API_DEBUG.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <sys/mman.h>

#include "../kselftest_harness.h"
#include "tsm_test.h"

#define TWO_PAGES (2 * PAGE)
#define HEAPS "/dev/dma_heap/"
#define PATTERN 0x5aa5c33c0ff09669ULL

FIXTURE(heap)
{
	struct machine m;
	struct tdi *t;
	int heap;
};

FIXTURE_VARIANT(heap)
{
	const char *name;
	bool shared;
	bool trusted;
};

FIXTURE_VARIANT_ADD(heap, private_untrusted)
{
	.name = "system"
};
FIXTURE_VARIANT_ADD(heap, private_trusted)
{
	.name = "system", .trusted = true
};
FIXTURE_VARIANT_ADD(heap, shared_untrusted)
{
	.name = "system_cc_shared", .shared = true
};
FIXTURE_VARIANT_ADD(heap, shared_trusted)
{
	.name = "system_cc_shared", .shared = true, .trusted = true
};

FIXTURE_SETUP(heap)
{
	char path[TEXT_LEN];

	self->heap = -1;
	MACHINE_SETUP(NEED_ALL);
	snprintf(path, sizeof(path), HEAPS "%s", variant->name);
	self->heap = open(path, O_RDONLY | O_CLOEXEC);
	if (self->heap < 0)
		SKIP(return, "no %s: kernel without CONFIG_DMABUF_HEAPS_SYSTEM_CC_SHARED",
		     path);
	if (variant->trusted)
		test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(variant->trusted, self->t);
}

FIXTURE_TEARDOWN(heap)
{
	if (!self->t)
		return;
	if (self->heap >= 0)
		close(self->heap);
	test_check(&self->m);
	EXPECT_EQ(0, tdi_reset(&self->m, self->t));
	machine_close(&self->m);
}

/* A buffer, and how the CPU sees it. 0 or -errno */
static int buffer_alloc(int heap, size_t size, int *fd, void **data)
{
	struct dma_heap_allocation_data req = {
		.len = size,
		.fd_flags = O_RDWR | O_CLOEXEC,
	};

	if (ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &req))
		return -errno;
	*fd = req.fd;
	*data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	return *data == MAP_FAILED ? -errno : 0;
}

/* One transfer by the TDI. 0 or -errno */
static int buffer_dma(const struct tdi *t, int fd, __u32 op,
		      struct tdi_test_dmabuf *req)
{
	*req = (struct tdi_test_dmabuf){
		.fd = fd,
		.dma = { .op = op, .length = PAGE, .pattern = PATTERN },
	};
	return ioctl(t->fd, TDI_TEST_DMABUF, req) ? -errno : 0;
}

TEST_F(heap, heap_attr)
{
	bool reachable = !variant->shared || !variant->trusted ||
			 has_shared_window(&self->m);
	__s64 shared = platform_shared_pages(&self->m);
	long splats = kernel_splats();
	struct tdi_test_dmabuf req;
	unsigned int i;
	void *data = NULL;
	int fd = -1;

	ASSERT_EQ(0, buffer_alloc(self->heap, TWO_PAGES, &fd, &data));
	memset(data, 0x3c, TWO_PAGES);
	if (variant->shared) {
		EXPECT_LT(shared, platform_shared_pages(&self->m));
	}
	if (!reachable) {
		EXPECT_GT(0, buffer_dma(self->t, fd, TDI_TEST_READ, &req));
	} else {
		ASSERT_EQ(0, buffer_dma(self->t, fd, TDI_TEST_READ, &req));
		EXPECT_EQ(NONE, req.dma.reason);
		EXPECT_EQ(PAGE, req.dma.done);
		EXPECT_EQ(crc32_of(data, PAGE), req.dma.crc);
		EXPECT_EQ(variant->trusted ? TDI_TEST_T_1 : TDI_TEST_T_0,
			  (int)req.dma.t);
		EXPECT_EQ(variant->shared,
			  platform_is_shared(&self->m, req.phys));

		ASSERT_EQ(0, buffer_dma(self->t, fd, TDI_TEST_WRITE, &req));
		EXPECT_EQ(NONE, req.dma.reason);
		for (i = 0; i < PAGE / sizeof(__u64); i++)
			ASSERT_EQ(PATTERN, ((__u64 *)data)[i]);
		EXPECT_EQ(0x3c, ((unsigned char *)data)[PAGE]);
	}
	test_live(0, self->t);
	test_no_mismatch(self->t);

	/* It goes back private, as it was */
	ASSERT_EQ(0, munmap(data, TWO_PAGES));
	close(fd);
	EXPECT_EQ(shared, platform_shared_pages(&self->m));
	EXPECT_EQ(splats, kernel_splats());
}

TEST_HARNESS_MAIN
