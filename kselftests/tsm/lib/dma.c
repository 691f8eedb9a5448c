// SPDX-License-Identifier: GPL-2.0-only
/* Mappings and DMA, by /dev/tdi_test-<BDF>. */
#include <fcntl.h>
#include <sys/ioctl.h>

#include "tsm_test.h"

#define REG_BUFFER 0x1000
#define STATUS_DONE 2

/* It takes the machine a moment to make the file */
#define OPEN_TRIES 100
#define OPEN_PAUSE_US 10000

static const char *const entry_names[TDI_TEST_NR_ENTRIES] = {
	[TDI_TEST_PHYS] = "dma_map_phys",
	[TDI_TEST_PAGE] = "dma_map_page",
	[TDI_TEST_SINGLE] = "dma_map_single",
	[TDI_TEST_RESOURCE] = "dma_map_resource",
	[TDI_TEST_SG] = "dma_map_sg",
	[TDI_TEST_SGTABLE] = "dma_map_sgtable",
	[TDI_TEST_COHERENT] = "dma_alloc_attrs",
	[TDI_TEST_MANAGED] = "dmam_alloc_attrs",
	[TDI_TEST_PAGES] = "dma_alloc_pages",
	[TDI_TEST_NONCONTIGUOUS] = "dma_alloc_noncontiguous",
	[TDI_TEST_POOL] = "dma_pool_alloc",
	[TDI_TEST_IOVA_LINK] = "dma_iova_link",
};

const char *entry_name(__u32 entry)
{
	return entry < TDI_TEST_NR_ENTRIES ? entry_names[entry] : "?";
}

int tdi_open(struct tdi *t)
{
	char path[TEXT_LEN];
	int i;

	snprintf(path, sizeof(path), "/dev/tdi_test-%s", t->bdf);
	for (i = 0; i < OPEN_TRIES; i++) {
		t->fd = open(path, O_RDWR | O_CLOEXEC);
		if (t->fd >= 0 || errno != ENOENT)
			break;
		usleep(OPEN_PAUSE_US);
	}
	return t->fd < 0 ? -errno : 0;
}

void tdi_close(struct tdi *t)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

static int tdi_ioctl(const struct tdi *t, unsigned long cmd, void *arg)
{
	return ioctl(t->fd, cmd, arg) ? -errno : 0;
}

int tdi_info(const struct tdi *t, struct tdi_test_info *info)
{
	return tdi_ioctl(t, TDI_TEST_INFO, info);
}

/* 0 also if the entry point refused: see map->slot and map->ret */
int tdi_map(const struct tdi *t, __u32 entry, __u32 flags, __u64 size,
	    struct tdi_test_map *map)
{
	*map = (struct tdi_test_map){
		.entry = entry,
		.flags = flags,
		.size = size,
	};
	return tdi_ioctl(t, TDI_TEST_MAP, map);
}

int tdi_unmap(const struct tdi *t, __u32 slot)
{
	struct tdi_test_unmap req = { .slot = slot };

	return tdi_ioctl(t, TDI_TEST_UNMAP, &req);
}

int tdi_unmap_attrs(const struct tdi *t, __u32 slot, __u32 flags)
{
	struct tdi_test_unmap req = {
		.slot = slot,
		.flags = flags | TDI_TEST_UNMAP_FLAGS,
	};

	return tdi_ioctl(t, TDI_TEST_UNMAP, &req);
}

int tdi_unmap_addr(const struct tdi *t, __u64 addr, __u64 size)
{
	struct tdi_test_unmap_addr req = { .addr = addr, .size = size };

	return tdi_ioctl(t, TDI_TEST_UNMAP_ADDR, &req);
}

int tdi_resolve(const struct tdi *t, __u32 slot, __u64 offset,
		struct tdi_test_resolve *at)
{
	*at = (struct tdi_test_resolve){ .slot = slot, .offset = offset };
	return tdi_ioctl(t, TDI_TEST_RESOLVE, at);
}

static int tdi_rw(const struct tdi *t, __u32 slot, __u64 offset, void *data,
		  __u64 length, __u32 flags)
{
	struct tdi_test_rw req = {
		.slot = slot,
		.flags = flags,
		.offset = offset,
		.length = length,
		.data = (uintptr_t)data,
	};

	return tdi_ioctl(t, TDI_TEST_RW, &req);
}

int tdi_cpu_write(const struct tdi *t, __u32 slot, __u64 offset,
		  const void *data, __u64 length)
{
	return tdi_rw(t, slot, offset, (void *)data, length, TDI_TEST_RW_WRITE);
}

int tdi_cpu_read(const struct tdi *t, __u32 slot, __u64 offset, void *data,
		 __u64 length)
{
	return tdi_rw(t, slot, offset, data, length, 0);
}

int tdi_dma(const struct tdi *t, struct tdi_test_dma *dma)
{
	return tdi_ioctl(t, TDI_TEST_DMA, dma);
}

/* At an address. 0 if the engine ran, whatever came out of it. */
int tdi_dma_at(const struct tdi *t, __u32 op, __u32 how, __u64 iova,
	       __u64 length, struct tdi_test_dma *dma)
{
	*dma = (struct tdi_test_dma){
		.op = op,
		.slot = TDI_TEST_NO_SLOT,
		.target_slot = TDI_TEST_NO_SLOT,
		.t = how,
		.target_t = how,
		.iova = iova,
		.target = iova,
		.length = length,
		.pattern = 0x5aa5c33c0ff09669ULL,
	};
	return tdi_dma(t, dma);
}

/* The CRC of zlib, which is what the device computes */
__u32 crc32_of(const void *data, size_t length)
{
	const unsigned char *p = data;
	__u32 crc = ~0U;
	int bit;

	while (length--) {
		crc ^= *p++;
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320U : 0);
	}
	return ~crc;
}

static void fill(unsigned char *data, size_t length, __u32 seed)
{
	size_t i;

	for (i = 0; i < length; i++) {
		seed = seed * 1664525 + 1013904223;
		data[i] = seed >> 24;
	}
}

/* One piece with consecutive DMA addresses, both ways */
static int roundtrip_piece(const struct tdi *t, __u32 how,
			   const struct tdi_test_resolve *at,
			   const unsigned char *sent, char *why, size_t size)
{
	struct tdi_test_dma dma;
	int rc;

	rc = tdi_dma_at(t, TDI_TEST_READ, how, at->addr, at->length, &dma);
	if (rc || dma.status != STATUS_DONE || dma.done != at->length) {
		snprintf(why, size, "read at %#llx: rc %d, status %u, reason %u",
			 at->addr, rc, dma.status, dma.reason);
		return -EIO;
	}
	if (dma.crc != crc32_of(sent, at->length)) {
		snprintf(why, size, "the device read something else at %#llx",
			 at->addr);
		return -EBADMSG;
	}
	rc = tdi_dma_at(t, TDI_TEST_WRITE, how, at->addr, at->length, &dma);
	if (rc || dma.status != STATUS_DONE || dma.done != at->length) {
		snprintf(why, size, "write at %#llx: rc %d, status %u, reason %u",
			 at->addr, rc, dma.status, dma.reason);
		return -EIO;
	}
	return 0;
}

/* Each piece begins with the first byte of the pattern */
static void fill_pattern(unsigned char *data, size_t length)
{
	const __u64 pattern = 0x5aa5c33c0ff09669ULL;
	size_t i;

	for (i = 0; i < length; i++)
		data[i] = pattern >> 8 * (i % 8);
}

static int roundtrip(const struct tdi *t, const struct tdi_test_map *map,
		     unsigned char *data, __u64 size, __u32 how, char *why,
		     size_t why_size)
{
	unsigned char *expected = data + size, *seen = data + 2 * size;
	struct tdi_test_resolve at;
	__u64 offset;
	int rc;

	fill(data, size, map->slot + map->entry);
	rc = tdi_cpu_write(t, map->slot, 0, data, size);
	for (offset = 0; !rc && offset < size; offset += at.length) {
		rc = tdi_resolve(t, map->slot, offset, &at);
		if (rc)
			break;
		if (at.length > size - offset)
			at.length = size - offset;
		rc = roundtrip_piece(t, how, &at, data + offset, why, why_size);
		fill_pattern(expected + offset, at.length);
	}
	if (!rc)
		rc = tdi_cpu_read(t, map->slot, 0, seen, size);
	if (!rc && memcmp(expected, seen, size)) {
		snprintf(why, why_size, "the CPU sees not what the device wrote");
		rc = -EBADMSG;
	}
	return rc;
}

/*
 * The CPU writes, the device reads; the device writes, the CPU reads. @why says
 * what went wrong.
 */
int tdi_roundtrip(const struct tdi *t, const struct tdi_test_map *map,
		  __u64 size, __u32 how, char *why, size_t why_size)
{
	unsigned char *data = malloc(3 * size);
	int rc;

	snprintf(why, why_size, "no access by the CPU");
	if (!data)
		return -ENOMEM;
	rc = roundtrip(t, map, data, size, how, why, why_size);
	free(data);
	return rc;
}

int tdi_reg(const struct tdi *t, __u32 offset, bool write, __u32 *value)
{
	struct tdi_test_reg req = {
		.offset = offset,
		.write = write,
		.width = 4,
		.value = *value,
	};
	int rc = tdi_ioctl(t, TDI_TEST_REG, &req);

	if (!rc)
		*value = req.value;
	return rc;
}

/* An exchange with a mailbox of the TDI; @answer holds what came back */
int tdi_doe(const struct tdi *t, __u32 type, const void *request, __u32 size,
	    struct tdi_test_doe *answer)
{
	*answer = (struct tdi_test_doe){ .type = type, .size = size };
	if (size > sizeof(answer->data))
		return -EINVAL;
	memcpy(answer->data, request, size);
	return tdi_ioctl(t, TDI_TEST_DOE, answer);
}

/* What a READ brought into the device */
int tdi_buffer_read(const struct tdi *t, void *data, size_t length)
{
	size_t at;
	int rc = 0;

	for (at = 0; !rc && at + 4 <= length; at += 4)
		rc = tdi_reg(t, REG_BUFFER + at, false, (void *)((char *)data + at));
	return rc;
}

/* What tdi_test does in its next probes */
int probe_mode(struct machine *m, const struct tdi *t, __u32 mode)
{
	struct tdi_test_probe req = { .bdf = t->id, .mode = mode };

	return ioctl(m->control, TDI_TEST_SET_PROBE, &req) ? -errno : 0;
}

int probe_result(struct machine *m, const struct tdi *t,
		 struct tdi_test_probe *result)
{
	*result = (struct tdi_test_probe){ .bdf = t->id };
	return ioctl(m->control, TDI_TEST_GET_PROBE, result) ? -errno : 0;
}
