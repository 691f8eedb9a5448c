// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads and writes a PCI function from the init of a test VM, without a driver.
 *
 * tdi_poke BDF ACCESS...   ACCESS: SPACE SIZE OFFSET [= VALUE], e.g. "b4:0x104" reads BAR0,
 * "b8:0x110=0x18000000" writes it, "c2:0x4=0x6" writes configuration space. Each read prints
 * one line "ACCESS -> VALUE".
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BAR_BYTES 0x4000

static int open_of(const char *bdf, const char *file)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, file);
	fd = open(path, O_RDWR | O_SYNC);
	if (fd < 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

static uint64_t bar_read(volatile char *bar, int size, unsigned long offset)
{
	if (size == 8)
		return *(volatile uint64_t *)(bar + offset);
	if (size == 4)
		return *(volatile uint32_t *)(bar + offset);
	return *(volatile uint8_t *)(bar + offset);
}

static void bar_write(volatile char *bar, int size, unsigned long offset, uint64_t value)
{
	if (size == 8)
		*(volatile uint64_t *)(bar + offset) = value;
	else if (size == 4)
		*(volatile uint32_t *)(bar + offset) = value;
	else
		*(volatile uint8_t *)(bar + offset) = value;
}

int main(int argc, char **argv)
{
	volatile char *bar = NULL;
	int config, i;

	if (argc < 3)
		return 2;
	config = open_of(argv[1], "config");
	for (i = 2; i < argc; i++) {
		char space, *equals = strchr(argv[i], '=');
		unsigned long offset;
		uint64_t value = 0;
		int size;

		if (sscanf(argv[i], "%c%d:%li", &space, &size, (long *)&offset) != 3)
			return 2;
		if (space == 'b' && !bar) {
			int fd = open_of(argv[1], "resource0");

			bar = mmap(NULL, BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
			if (bar == MAP_FAILED) {
				perror("mmap");
				return 1;
			}
		}
		if (equals)
			value = strtoull(equals + 1, NULL, 0);
		if (space == 'b' && equals) {
			bar_write(bar, size, offset, value);
			continue;
		}
		if (equals) {
			if (pwrite(config, &value, size, offset) != size)
				perror(argv[i]);
			continue;
		}
		if (space == 'b')
			value = bar_read(bar, size, offset);
		else if (pread(config, &value, size, offset) != size)
			perror(argv[i]);
		printf("%s -> %#llx\n", argv[i], (unsigned long long)value);
	}
	return 0;
}
