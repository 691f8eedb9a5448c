// SPDX-License-Identifier: GPL-2.0-only
/*
 * The init of a VM that pokes PCI functions without a driver. It carries out /script:
 *
 *	say TEXT		print it
 *	show FILE		print the file's lines, or "none"
 *	set FILE TEXT		write to the file
 *	free BDF		unbind the function's driver, if it has one
 *	wait MILLISECONDS
 *	pci BDF ACCESS...	SPACE SIZE : OFFSET [= VALUE], e.g. "b4:0x104" reads BAR0,
 *				"b8:0x110=0x18000000" writes it, "c2:0x4=0x6" writes configuration
 *				space. A read prints "ACCESS -> VALUE".
 *
 * and powers off.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

#define BAR_BYTES 0x4000

static int open_of(const char *bdf, const char *file)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, file);
	fd = open(path, O_RDWR | O_SYNC);
	if (fd < 0)
		perror(path);
	return fd;
}

static uint64_t bar_read(volatile char *bar, int size, long offset)
{
	if (size == 8)
		return *(volatile uint64_t *)(bar + offset);
	if (size == 4)
		return *(volatile uint32_t *)(bar + offset);
	return *(volatile uint8_t *)(bar + offset);
}

static void bar_write(volatile char *bar, int size, long offset, uint64_t value)
{
	if (size == 8)
		*(volatile uint64_t *)(bar + offset) = value;
	else if (size == 4)
		*(volatile uint32_t *)(bar + offset) = value;
	else
		*(volatile uint8_t *)(bar + offset) = value;
}

static void access_function(int config, volatile char *bar, const char *access)
{
	const char *equals = strchr(access, '=');
	uint64_t value = equals ? strtoull(equals + 1, NULL, 0) : 0;
	char space;
	long offset;
	int size;

	if (sscanf(access, "%c%d:%li", &space, &size, &offset) != 3) {
		printf("bad access: %s\n", access);
		return;
	}
	if (space == 'b') {
		if (equals)
			bar_write(bar, size, offset, value);
		else
			value = bar_read(bar, size, offset);
	} else if (equals ? pwrite(config, &value, size, offset) != size :
			    pread(config, &value, size, offset) != size) {
		perror(access);
	}
	if (!equals)
		printf("%s -> %#llx\n", access, (unsigned long long)value);
}

static void pci(char *rest)
{
	char *bdf = strsep(&rest, " "), *access;
	int config = open_of(bdf, "config"), resource = open_of(bdf, "resource0");
	volatile char *bar;

	bar = mmap(NULL, BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, resource, 0);
	if (config < 0 || bar == MAP_FAILED) {
		printf("cannot use %s\n", bdf);
		return;
	}
	while ((access = strsep(&rest, " ")))
		access_function(config, bar, access);
	munmap((void *)bar, BAR_BYTES);
	close(resource);
	close(config);
}

static void show(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[512];

	if (!file || !fgets(line, sizeof(line), file))
		strcpy(line, "none\n");
	do {
		printf("%s: %s", path, line);
	} while (file && fgets(line, sizeof(line), file));
	if (file)
		fclose(file);
}

static void set(char *rest)
{
	const char *path = strsep(&rest, " ");
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, rest, strlen(rest)) < 0)
		perror(path);
	if (fd >= 0)
		close(fd);
}

static void free_function(const char *bdf)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver/unbind", bdf);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return;
	if (write(fd, bdf, strlen(bdf)) < 0)
		perror(path);
	close(fd);
}

int main(void)
{
	FILE *script = fopen("/script", "r");
	char line[4096];

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (script && fgets(line, sizeof(line), script)) {
		char *rest = line, *verb;

		line[strcspn(line, "\n")] = '\0';
		verb = strsep(&rest, " ");
		if (!strcmp(verb, "say"))
			printf("%s\n", rest);
		else if (!strcmp(verb, "show"))
			show(rest);
		else if (!strcmp(verb, "set"))
			set(rest);
		else if (!strcmp(verb, "free"))
			free_function(rest);
		else if (!strcmp(verb, "wait"))
			usleep(1000 * atoi(rest));
		else if (!strcmp(verb, "pci"))
			pci(rest);
	}
	printf("script ended\n");
	reboot(RB_POWER_OFF);
	return 0;
}
