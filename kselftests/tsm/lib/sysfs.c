// SPDX-License-Identifier: GPL-2.0-only
/* The files of PCI/TSM in sysfs, and binding of drivers. */
#include "tsm_test.h"

#define DEVICES "/sys/bus/pci/devices/"
#define DRIVER "/sys/bus/pci/drivers/tdi_test/"

static void tdi_path(const struct tdi *t, const char *file, char *path)
{
	snprintf(path, TEXT_LEN, DEVICES "%s/%s", t->bdf, file);
}

int tdi_write(const struct tdi *t, const char *file, const char *text)
{
	char path[TEXT_LEN];

	tdi_path(t, file, path);
	return write_text(path, text);
}

int tdi_read(const struct tdi *t, const char *file, char *buf, size_t size)
{
	char path[TEXT_LEN];

	tdi_path(t, file, path);
	return read_text(path, buf, size);
}

bool tdi_has(const struct tdi *t, const char *file)
{
	char path[TEXT_LEN];

	tdi_path(t, file, path);
	return !access(path, F_OK);
}

bool tdi_is_bound(const struct tdi *t)
{
	return tdi_has(t, "driver");
}

int tdi_bind(const struct tdi *t)
{
	return write_text(DRIVER "bind", t->bdf);
}

/* From whatever driver there is, if any. Closes the TDI. */
int tdi_unbind(struct tdi *t)
{
	tdi_close(t);
	if (!tdi_is_bound(t))
		return 0;
	return tdi_write(t, "driver/unbind", t->bdf);
}

int tdi_lock(struct machine *m, const struct tdi *t)
{
	return tdi_write(t, "tsm/lock", m->tsm);
}

int tdi_accept(const struct tdi *t)
{
	return tdi_write(t, "tsm/accept", "1");
}

int tdi_unlock(struct machine *m, const struct tdi *t)
{
	return tdi_write(t, "tsm/unlock", m->tsm);
}

int tdi_trust(const struct tdi *t, const char *level)
{
	return tdi_write(t, "trust", level);
}

int tdi_remove(struct tdi *t)
{
	tdi_close(t);
	return tdi_write(t, "remove", "1");
}

int bus_rescan(void)
{
	return write_text("/sys/bus/pci/rescan", "1");
}

/* Bits of /proc/sys/kernel/tainted that tell of a splat: oops and warning */
long kernel_tainted(void)
{
	char text[32];

	if (read_text("/proc/sys/kernel/tainted", text, sizeof(text)))
		return -1;
	return strtol(text, NULL, 0) & (1L << 7 | 1L << 9);
}
