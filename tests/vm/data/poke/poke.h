/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The emulated platform's functions from user space, without a driver: registers as in
 * docs/platform.md, memory by its physical address.
 */
#ifndef POKE_H
#define POKE_H

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BAR_BYTES 0x4000
#define PAGE_BYTES 4096

/* KTAP; the exit statuses are those of kselftest */
#define EXIT_SKIP 4

static int tests, failed;

static inline void plan(int count)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..%d\n", count);
}

static inline void check(int good, const char *what)
{
	tests++;
	failed += !good;
	printf("%sok %d %s\n", good ? "" : "not ", tests, what);
}

static inline int finished(void)
{
	return failed != 0;
}

static inline void skip_all(const char *why)
{
	printf("TAP version 13\n1..0 # SKIP %s\n", why);
	exit(EXIT_SKIP);
}

struct function {
	char path[300];
	volatile char *bar;
	int config;
};

static inline uint32_t get(struct function *f, int at)
{
	return *(volatile uint32_t *)(f->bar + at);
}

static inline void put(struct function *f, int at, uint32_t value)
{
	*(volatile uint32_t *)(f->bar + at) = value;
}

static inline void put64(struct function *f, int at, uint64_t value)
{
	*(volatile uint64_t *)(f->bar + at) = value;
}

static inline void store(const char *directory, const char *name, const char *text)
{
	char path[400];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		printf("# %s: not written\n", path);
	close(fd);
}

/* The first function with this id in vendor 1b36, without its driver, with DMA and memory on. */
static inline int find(struct function *f, const char *device)
{
	DIR *all = opendir("/sys/bus/pci/devices");
	uint16_t command = 6;
	struct dirent *entry;
	char path[400], id[16];
	int fd, bar;

	while (all && (entry = readdir(all))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(f->path, sizeof(f->path), "/sys/bus/pci/devices/%s", entry->d_name);
		snprintf(path, sizeof(path), "%s/device", f->path);
		fd = open(path, O_RDONLY);
		memset(id, 0, sizeof(id));
		if (fd < 0 || read(fd, id, sizeof(id) - 1) < 0 || strncmp(id, device, 6)) {
			close(fd);
			continue;
		}
		close(fd);
		store(f->path, "driver/unbind", entry->d_name);
		store(f->path, "enable", "1");
		snprintf(path, sizeof(path), "%s/config", f->path);
		f->config = open(path, O_RDWR);
		snprintf(path, sizeof(path), "%s/resource0", f->path);
		bar = open(path, O_RDWR | O_SYNC);
		f->bar = mmap(NULL, BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, bar, 0);
		if (f->bar == MAP_FAILED || pwrite(f->config, &command, 2, 4) != 2)
			continue;
		closedir(all);
		return 0;
	}
	return -1;
}

/* A page that stays where it is, and its physical address. */
static inline char *page_of(uint64_t *gpa)
{
	char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
	int map = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0;

	memset(page, 0xee, PAGE_BYTES);
	if (pread(map, &entry, 8, (uintptr_t)page / PAGE_BYTES * 8) != 8 || !(entry >> 63))
		skip_all("no physical address");
	*gpa = (entry & ((1ULL << 55) - 1)) * PAGE_BYTES;
	return page;
}

/* PAGE_STATE: 1 shared, 0 private. Returns the result of the command. */
static inline uint32_t page_state(struct function *tsm, uint64_t gpa, int shared)
{
	put64(tsm, 0x50, gpa);
	put64(tsm, 0x58, 1);
	put64(tsm, 0x60, shared);
	put(tsm, 0x48, 0);
	put(tsm, 0x4c, 0x19);
	while (get(tsm, 0x40) != 2)
		usleep(1000);
	return get(tsm, 0x44);
}

/* The TDI writes 0x55 over a page. Returns the reason of the failure, 0 for none. */
static inline uint32_t dma_write(struct function *tdi, uint64_t gpa, int trusted)
{
	put64(tdi, 0x110, gpa);
	put64(tdi, 0x120, PAGE_BYTES);
	put64(tdi, 0x128, 0x5555555555555555);
	put(tdi, 0x10c, 0x20 | trusted);
	put(tdi, 0x100, 1);
	while (get(tdi, 0x104) == 1)
		usleep(1000);
	return get(tdi, 0x108);
}

static inline void announce(struct function *tdi, int reason, int times)
{
	put(tdi, 0x200, reason | times << 8);
}

#endif
