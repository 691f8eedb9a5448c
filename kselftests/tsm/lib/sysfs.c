// SPDX-License-Identifier: GPL-2.0-only
/* The files of PCI/TSM in sysfs, and binding of drivers. */
#include "tsm_test.h"

#define DEVICES "/sys/bus/pci/devices/"
#define DRIVER "/sys/bus/pci/drivers/tdi_test/"
#define TSM_DRIVER "/sys/bus/auxiliary/drivers/tdisp_emu.tsm/"
#define TSM_DEVICE "tdisp_emu.tsm.0"

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

/* Unbound: no flush queue for the domain any more, if it has one */
int tdi_flush_at_once(const struct tdi *t)
{
	char type[32];

	if (tdi_read(t, "iommu_group/type", type, sizeof(type)) ||
	    strcmp(type, "DMA-FQ"))
		return 0;
	return tdi_write(t, "iommu_group/type", "DMA");
}

int tdi_remove(struct tdi *t)
{
	tdi_close(t);
	return tdi_write(t, "remove", "1");
}

/* Do devices below the port keep away from each other? Source validation, redirection */
static int port_set_acs(const struct tdi *t, bool on)
{
	__u16 control = on ? 0x1d : 0;
	char path[TEXT_LEN];
	int at = 0x100, fd, rc = -ENXIO;
	__u32 head;

	tdi_path(t, "../config", path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (at && pread(fd, &head, sizeof(head), at) == sizeof(head)) {
		if ((head & 0xffff) == 0x0d) {
			rc = pwrite(fd, &control, sizeof(control), at + 6) < 0 ?
			     -errno : 0;
			break;
		}
		at = head >> 20;
	}
	close(fd);
	return rc;
}

/*
 * The functions of one device have no ACS. Once their port has it, it is they who
 * share an IOMMU group; before, the port would decide, and it has no group.
 */
int tdi_share_group(struct tdi *tdis, int n, bool share)
{
	int i, rc = port_set_acs(&tdis[0], share);

	for (i = 0; !rc && i < n; i++)
		rc = tdi_remove(&tdis[i]);
	return rc ?: bus_rescan();
}

int bus_rescan(void)
{
	return write_text("/sys/bus/pci/rescan", "1");
}

/* Do drivers bind to devices that appear? */
int bus_autoprobe(bool on)
{
	return write_text("/sys/bus/pci/drivers_autoprobe", on ? "1" : "0");
}

bool tsm_has_driver(void)
{
	return !access(TSM_DRIVER, F_OK);
}

/* Has the platform's TSM a driver that can be unbound? */
bool tsm_can_go(void)
{
	return !access(TSM_DRIVER "unbind", W_OK);
}

/* The TSM comes, maybe under another name: see machine_find_tsm() */
int tsm_come(void)
{
	return write_text(TSM_DRIVER "bind", TSM_DEVICE);
}

int tsm_go(void)
{
	return write_text(TSM_DRIVER "unbind", TSM_DEVICE);
}

/*
 * Unmaps of the TDI that matched no mapping, as the DMA API counts them while a
 * driver is bound: a bug, if not of the test then of the kernel. Or -errno.
 */
long tdi_mismatches(const struct tdi *t)
{
	FILE *file = fopen("/sys/kernel/debug/dma-freeze/devices", "re");
	char line[TEXT_LEN], device[TEXT_LEN];
	long count, found = -ENOENT;

	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%*s %*d %ld %*s %127s", &count, device) == 2 &&
		    !strcmp(device, t->bdf))
			found = count;
	fclose(file);
	return found;
}

/* How many warnings and oopses so far: a taint tells of the first one alone */
long kernel_splats(void)
{
	static const char *const files[] = { "/sys/kernel/warn_count",
					     "/sys/kernel/oops_count" };
	char text[32];
	long sum = 0;
	unsigned int i;
	int rc;

	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		rc = read_text(files[i], text, sizeof(text));
		if (rc)
			return rc;
		sum += strtol(text, NULL, 10);
	}
	return sum;
}
