// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host in charge of the TDIs: tsm/connect and tsm/disconnect with the link
 * TSM of the emulated platform (CONFIG_TDISP_EMU_LINK), and the binding of TDIs
 * to a VM by vfio-pci (vfio_pci.tsm_bind).
 *
 * What the kernel says is compared with what the security processor knows. Its
 * mailbox is asked past the driver, which gives no command unless a test has
 * it do something, and is told to fail commands, or to be slow.
 *
 * A machine without the host's port, as any but those of the emulated platform
 * with its host in charge, has nothing to test.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/iommufd.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "text.h"

#define DEVICES "/sys/bus/pci/devices"
#define DRIVER "/sys/bus/pci/drivers/tdisp-emu-link"
#define VFIO_PCI "/sys/bus/pci/drivers/vfio-pci"
#define OPT_IN "/sys/module/vfio_pci/parameters/tsm_bind"

#define VENDOR_ID "0x1b36"
#define TDI_ID "0x0dee"
#define HOST_PORT_ID "0x0df0"

/* Of a TDI, in configuration space */
#define INTERFACE_ID_AT 0x13c

#define MAILBOX_SIZE 0x1000
#define REG_STATUS 0x040
#define REG_RESULT 0x044
#define REG_TDI 0x048
#define REG_COMMAND 0x04c
#define REG_ARG 0x050
#define REG_OUT 0x080
#define STATUS_DONE 2

enum opcode {
	CMD_CONNECT = 0x01,
	CMD_DISCONNECT = 0x02,
	CMD_BIND = 0x03,
	CMD_UNBIND = 0x04,
	CMD_TDI_INFO = 0x1e,
	CMD_INJECT = 0x80,
};

enum injection { INJECT_CLEAR, INJECT_ERROR, INJECT_DELAY, INJECT_NO_ANSWER };

#define RESULT_FAILED 12

/* What the security processor knows of a TDI */
#define CONNECTED 0x100
#define BOUND 0x200

/* Less than the driver waits for an answer, and a lot more */
#define SLOW_MS 300
#define TOO_SLOW_MS 5000

#define NAME_LEN 32
#define PATH_LEN 384
#define NR_TDIS 2

FIXTURE(link) {
	char port[NAME_LEN]; /* address of the host's port */
	char tsm[NAME_LEN];
	char bdf[NR_TDIS][NAME_LEN];
	unsigned int id[NR_TDIS];
	unsigned int *regs;
};

#define LINK FIXTURE_DATA(link)

static int dev_path(char path[PATH_LEN], const char *bdf, const char *file)
{
	return snprintf(path, PATH_LEN, DEVICES "/%s/%s", bdf, file);
}

static int dev_read(const char *bdf, const char *file, char buf[NAME_LEN])
{
	char path[PATH_LEN];

	dev_path(path, bdf, file);
	return read_text(path, buf, NAME_LEN);
}

static int dev_write(const char *bdf, const char *file, const char *text)
{
	char path[PATH_LEN];

	dev_path(path, bdf, file);
	return write_text(path, text);
}

static bool dev_has(const char *bdf, const char *file)
{
	char path[PATH_LEN];

	dev_path(path, bdf, file);
	return !access(path, F_OK);
}

/* The last part of where a link of a device leads to, "" if there is none */
static void dev_link(const char *bdf, const char *file, char name[NAME_LEN])
{
	char path[PATH_LEN], to[PATH_LEN];
	const char *last;
	ssize_t n;

	dev_path(path, bdf, file);
	n = readlink(path, to, sizeof(to) - 1);
	to[n < 0 ? 0 : n] = '\0';
	last = strrchr(to, '/');
	snprintf(name, NAME_LEN, "%.31s", last ? last + 1 : to);
}

/* Addresses of the functions with this device ID, in order; how many */
static int find_devices(const char *device, char found[][NAME_LEN], int most)
{
	char vendor[NAME_LEN], id[NAME_LEN];
	struct dirent **list;
	int n = scandir(DEVICES, &list, NULL, alphasort);
	int i, count = 0;

	for (i = 0; i < n; i++) {
		const char *bdf = list[i]->d_name;

		if (count < most && !dev_read(bdf, "vendor", vendor) &&
		    !strcmp(vendor, VENDOR_ID) &&
		    !dev_read(bdf, "device", id) && !strcmp(id, device))
			snprintf(found[count++], NAME_LEN, "%.31s", bdf);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return count;
}

/* The TSM that the driver of this port registered: 0 or -ENODEV */
static int find_tsm(const char *port, char name[NAME_LEN])
{
	char path[PATH_LEN], to[PATH_LEN];
	struct dirent *entry;
	DIR *dir = opendir("/sys/class/tsm");
	ssize_t n;

	name[0] = '\0';
	while (dir && !name[0] && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/class/tsm/%.31s/device",
			 entry->d_name);
		n = readlink(path, to, sizeof(to) - 1);
		to[n < 0 ? 0 : n] = '\0';
		if (strrchr(to, '/') && !strcmp(strrchr(to, '/') + 1, port))
			snprintf(name, NAME_LEN, "%.31s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return name[0] ? 0 : -ENODEV;
}

static void pause_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static unsigned int reg_read(LINK *self, int at)
{
	return __atomic_load_n(&self->regs[at / 4], __ATOMIC_RELAXED);
}

static void reg_write(LINK *self, int at, unsigned int value)
{
	__atomic_store_n(&self->regs[at / 4], value, __ATOMIC_RELEASE);
}

/* Past the driver. The result, or -ETIMEDOUT; *out: OUT0 */
static int command(LINK *self, enum opcode opcode, unsigned int tdi,
		   const unsigned int arg[4], unsigned int *out)
{
	int i;

	for (i = 0; i < 4; i++) {
		reg_write(self, REG_ARG + 8 * i, arg ? arg[i] : 0);
		reg_write(self, REG_ARG + 8 * i + 4, 0);
	}
	reg_write(self, REG_TDI, tdi);
	reg_write(self, REG_COMMAND, opcode);
	for (i = 0; i < 2000; i++) {
		if (reg_read(self, REG_STATUS) == STATUS_DONE) {
			if (out)
				*out = reg_read(self, REG_OUT);
			return reg_read(self, REG_RESULT);
		}
		pause_ms(1);
	}
	return -ETIMEDOUT;
}

/* CONNECTED and BOUND of a TDI, as the security processor has it, or -1 */
static int knows(LINK *self, int n)
{
	unsigned int info = 0;

	if (command(self, CMD_TDI_INFO, self->id[n], NULL, &info))
		return -1;
	return info & (CONNECTED | BOUND);
}

/* What the next command with this opcode meets */
static int inject(LINK *self, enum opcode opcode, enum injection kind,
		  unsigned int value)
{
	const unsigned int arg[4] = { opcode, kind, value, 1 };

	return command(self, CMD_INJECT, 0, arg, NULL);
}

static int map_mailbox(LINK *self)
{
	char path[PATH_LEN];
	void *regs;
	int fd;

	dev_path(path, self->port, "resource0");
	fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	regs = mmap(NULL, MAILBOX_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		    0);
	close(fd);
	if (regs == MAP_FAILED)
		return -errno;
	self->regs = regs;
	return 0;
}

static void unmap_mailbox(LINK *self)
{
	if (self->regs)
		munmap(self->regs, MAILBOX_SIZE);
	self->regs = NULL;
}

static int connect_to(LINK *self, const char *name)
{
	return dev_write(self->bdf[0], "tsm/connect", name);
}

static int disconnect_from(LINK *self, const char *name)
{
	return dev_write(self->bdf[0], "tsm/disconnect", name);
}

/* Whether function 0 reads back as connected to this, and 1 as managed by 0 */
static bool shows(LINK *self, const char *name)
{
	char text[NAME_LEN], dsm[NAME_LEN] = "";

	if (dev_read(self->bdf[0], "tsm/connect", text) || strcmp(text, name))
		return false;
	dev_read(self->bdf[1], "tsm/dsm", dsm);
	return !strcmp(dsm, name[0] ? self->bdf[0] : "");
}

static int find_tdis(LINK *self)
{
	char path[PATH_LEN];
	int fd, n;

	if (find_devices(TDI_ID, self->bdf, NR_TDIS) != NR_TDIS)
		return -ENODEV;
	for (n = 0; n < NR_TDIS; n++) {
		dev_path(path, self->bdf[n], "config");
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (pread(fd, &self->id[n], 4, INTERFACE_ID_AT) != 4)
			self->id[n] = ~0U;
		close(fd);
		if (self->id[n] == ~0U)
			return -EIO;
	}
	return 0;
}

/* Everything is there again, connected to nothing, whatever a test left */
static int link_reset(LINK *self)
{
	static const enum opcode opcodes[] = { CMD_CONNECT, CMD_DISCONNECT,
					       CMD_BIND, CMD_UNBIND };
	unsigned int i;
	int rc, n;

	unmap_mailbox(self);
	if (!dev_has(self->port, "vendor") || find_tdis(self)) {
		write_text("/sys/bus/pci/rescan", "1");
		rc = find_tdis(self);
		if (rc)
			return rc;
	}
	if (!dev_has(self->port, "driver")) {
		rc = write_text(DRIVER "/bind", self->port);
		if (rc)
			return rc;
	}
	rc = find_tsm(self->port, self->tsm) ?: map_mailbox(self);
	if (rc)
		return rc;
	for (i = 0; i < ARRAY_SIZE(opcodes); i++)
		if (inject(self, opcodes[i], INJECT_CLEAR, 0))
			return -EIO;
	disconnect_from(self, self->tsm);
	/* What a test did past the driver */
	for (n = 0; n < NR_TDIS; n++) {
		command(self, CMD_DISCONNECT, self->id[n], NULL, NULL);
		if (knows(self, n))
			return -EBUSY;
	}
	return 0;
}

FIXTURE_SETUP(link)
{
	char found[1][NAME_LEN];

	memset(self, 0, sizeof(*self));
	if (geteuid())
		SKIP(return, "needs root");
	if (find_devices(HOST_PORT_ID, found, 1) != 1)
		SKIP(return, "no host's port of an emulated platform");
	if (access(DRIVER, F_OK))
		SKIP(return, "no driver (CONFIG_TDISP_EMU_LINK)");
	memcpy(self->port, found[0], NAME_LEN);
	ASSERT_EQ(0, find_tdis(self));
	ASSERT_EQ(0, link_reset(self));
}

FIXTURE_TEARDOWN(link)
{
	if (!self->port[0])
		return;
	EXPECT_EQ(0, link_reset(self));
	unmap_mailbox(self);
}

TEST_F(link, pci_mode)
{
	char path[PATH_LEN], mode[NAME_LEN];

	snprintf(path, sizeof(path), "/sys/class/tsm/%s/pci_mode", self->tsm);
	ASSERT_EQ(0, read_text(path, mode, sizeof(mode)));
	EXPECT_STREQ("link", mode);
}

TEST_F(link, connect_and_disconnect)
{
	EXPECT_TRUE(shows(self, ""));
	EXPECT_FALSE(dev_has(self->bdf[1], "tsm"));

	ASSERT_EQ(0, connect_to(self, self->tsm));
	EXPECT_TRUE(shows(self, self->tsm));
	EXPECT_EQ(CONNECTED, knows(self, 0));
	EXPECT_EQ(CONNECTED, knows(self, 1));
	/* The session is that of function 0, for the administrator */
	EXPECT_FALSE(dev_has(self->bdf[1], "tsm/connect"));

	ASSERT_EQ(0, disconnect_from(self, self->tsm));
	EXPECT_TRUE(shows(self, ""));
	EXPECT_FALSE(dev_has(self->bdf[1], "tsm"));
	EXPECT_EQ(0, knows(self, 0));
	EXPECT_EQ(0, knows(self, 1));
}

TEST_F(link, connect_wrong_name)
{
	/* Whoever asks the security processor is told that it failed */
	ASSERT_EQ(0, inject(self, CMD_CONNECT, INJECT_ERROR, RESULT_FAILED));
	EXPECT_EQ(-EINVAL, connect_to(self, "foo"));
	EXPECT_EQ(-ENXIO, connect_to(self, "tsm999"));
	EXPECT_TRUE(shows(self, ""));
	/* Nobody has */
	EXPECT_EQ(-EIO, connect_to(self, self->tsm));
}

TEST_F(link, connect_twice)
{
	ASSERT_EQ(0, connect_to(self, self->tsm));
	EXPECT_EQ(-EBUSY, connect_to(self, self->tsm));
	EXPECT_TRUE(shows(self, self->tsm));
	EXPECT_EQ(CONNECTED, knows(self, 0));
}

TEST_F(link, disconnect_wrong_name)
{
	EXPECT_EQ(-ENXIO, disconnect_from(self, self->tsm));
	ASSERT_EQ(0, connect_to(self, self->tsm));
	EXPECT_EQ(-EINVAL, disconnect_from(self, "tsm999"));
	EXPECT_TRUE(shows(self, self->tsm));
	EXPECT_EQ(CONNECTED, knows(self, 0));
	EXPECT_EQ(CONNECTED, knows(self, 1));
}

TEST_F(link, connect_fails)
{
	ASSERT_EQ(0, inject(self, CMD_CONNECT, INJECT_ERROR, RESULT_FAILED));
	EXPECT_EQ(-EIO, connect_to(self, self->tsm));
	EXPECT_TRUE(shows(self, ""));
	EXPECT_EQ(0, knows(self, 0));
	EXPECT_EQ(0, knows(self, 1));

	EXPECT_EQ(0, connect_to(self, self->tsm));
	EXPECT_EQ(CONNECTED, knows(self, 0));
}

TEST_F(link, connect_slow)
{
	long start = now_ms();

	ASSERT_EQ(0, inject(self, CMD_CONNECT, INJECT_DELAY, SLOW_MS));
	EXPECT_EQ(0, connect_to(self, self->tsm));
	EXPECT_LE(SLOW_MS, now_ms() - start);
	EXPECT_TRUE(shows(self, self->tsm));
	EXPECT_EQ(CONNECTED, knows(self, 0));
}

/* An answer that comes too late, or never: an end, and no connection */
TEST_F(link, connect_without_answer)
{
	static const enum injection kinds[] = { INJECT_NO_ANSWER,
						INJECT_DELAY };
	long start;
	int i;

	for (i = 0; i < 2; i++) {
		start = now_ms();
		ASSERT_EQ(0, inject(self, CMD_CONNECT, kinds[i], TOO_SLOW_MS));
		EXPECT_EQ(-ETIMEDOUT, connect_to(self, self->tsm));
		EXPECT_GT(TOO_SLOW_MS, now_ms() - start);
		EXPECT_TRUE(shows(self, ""));
		EXPECT_EQ(0, knows(self, 0));
	}
	EXPECT_EQ(0, connect_to(self, self->tsm));
	EXPECT_EQ(CONNECTED, knows(self, 0));
}

/* As a kernel may find it that was started by kexec */
TEST_F(link, connect_what_is_connected)
{
	ASSERT_EQ(0, command(self, CMD_CONNECT, self->id[0], NULL, NULL));
	ASSERT_EQ(0, command(self, CMD_CONNECT, self->id[1], NULL, NULL));
	ASSERT_EQ(0, command(self, CMD_BIND, self->id[1], NULL, NULL));
	EXPECT_EQ(0, connect_to(self, self->tsm));
	EXPECT_EQ(CONNECTED, knows(self, 0));
	/* To a VM that is no more */
	EXPECT_EQ(CONNECTED, knows(self, 1));
}

TEST_F(link, disconnect_without_answer)
{
	ASSERT_EQ(0, connect_to(self, self->tsm));
	ASSERT_EQ(0, inject(self, CMD_DISCONNECT, INJECT_NO_ANSWER, 0));
	EXPECT_EQ(0, disconnect_from(self, self->tsm));
	EXPECT_TRUE(shows(self, ""));

	EXPECT_EQ(0, connect_to(self, self->tsm));
	EXPECT_EQ(CONNECTED, knows(self, 0));
	EXPECT_EQ(CONNECTED, knows(self, 1));
	EXPECT_EQ(0, disconnect_from(self, self->tsm));
	EXPECT_EQ(0, knows(self, 0));
	EXPECT_EQ(0, knows(self, 1));
}

/* The TSM goes while it is connected, and comes again */
TEST_F(link, unbind_driver)
{
	char name[NAME_LEN];

	ASSERT_EQ(0, connect_to(self, self->tsm));
	ASSERT_EQ(0, write_text(DRIVER "/unbind", self->port));
	EXPECT_EQ(0, knows(self, 0));
	EXPECT_EQ(0, knows(self, 1));
	EXPECT_EQ(-ENODEV, find_tsm(self->port, name));
	EXPECT_FALSE(dev_has(self->bdf[1], "tsm"));

	ASSERT_EQ(0, write_text(DRIVER "/bind", self->port));
	ASSERT_EQ(0, find_tsm(self->port, self->tsm));
	EXPECT_TRUE(shows(self, ""));
	EXPECT_EQ(0, connect_to(self, self->tsm));
	EXPECT_TRUE(shows(self, self->tsm));
}

/* The security processor is taken off the bus while it is connected */
TEST_F_TIMEOUT(link, remove_security_processor, 60)
{
	ASSERT_EQ(0, connect_to(self, self->tsm));
	unmap_mailbox(self);
	ASSERT_EQ(0, dev_write(self->port, "remove", "1"));
	EXPECT_FALSE(dev_has(self->bdf[1], "tsm"));

	ASSERT_EQ(0, write_text("/sys/bus/pci/rescan", "1"));
	ASSERT_EQ(0, find_tsm(self->port, self->tsm));
	ASSERT_EQ(0, map_mailbox(self));
	EXPECT_EQ(0, knows(self, 0));
	EXPECT_EQ(0, knows(self, 1));
	EXPECT_TRUE(shows(self, ""));
	EXPECT_EQ(0, connect_to(self, self->tsm));
	EXPECT_TRUE(shows(self, self->tsm));
}

/* Functions that come and go follow function 0, and none follows when it goes */
TEST_F_TIMEOUT(link, remove_functions, 60)
{
	ASSERT_EQ(0, connect_to(self, self->tsm));
	ASSERT_EQ(0, dev_write(self->bdf[1], "remove", "1"));
	EXPECT_EQ(CONNECTED, knows(self, 0));
	EXPECT_EQ(0, knows(self, 1));

	ASSERT_EQ(0, write_text("/sys/bus/pci/rescan", "1"));
	EXPECT_TRUE(shows(self, self->tsm));
	EXPECT_EQ(CONNECTED, knows(self, 1));

	ASSERT_EQ(0, dev_write(self->bdf[0], "remove", "1"));
	EXPECT_EQ(0, knows(self, 0));
	EXPECT_EQ(0, knows(self, 1));
	EXPECT_FALSE(dev_has(self->bdf[1], "tsm"));

	ASSERT_EQ(0, write_text("/sys/bus/pci/rescan", "1"));
	EXPECT_TRUE(shows(self, ""));
	EXPECT_EQ(0, knows(self, 0));
}

/* A device that vfio-pci has, and a user with a VM */
FIXTURE(vfio) {
	LINK link;
	char opt_in[NAME_LEN]; /* as it was */
	int n; /* the TDI */
	int container; /* or iommufd */
	int group; /* if any */
	int device;
	int kvm;
	int vm;
	int kvm_vfio;
};

#define VFIO FIXTURE_DATA(vfio)

FIXTURE_VARIANT(vfio) {
	bool iommufd;
	int n;
};

FIXTURE_VARIANT_ADD(vfio, group) {
	.n = 0,
};

FIXTURE_VARIANT_ADD(vfio, iommufd) {
	.iommufd = true,
	.n = 1,
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* vfio-pci latches the opt-in when it is bound */
static int give_to_vfio(VFIO *self, const char *opt_in)
{
	int rc = 0, n;

	if (write_text(OPT_IN, opt_in))
		return -errno;
	for (n = 0; !rc && n < NR_TDIS; n++) {
		const char *bdf = self->link.bdf[n];

		if (dev_has(bdf, "driver"))
			dev_write(bdf, "driver/unbind", bdf);
		rc = dev_write(bdf, "driver_override", "vfio-pci") ?:
		     write_text(VFIO_PCI "/bind", bdf);
	}
	return rc;
}

static void take_from_vfio(VFIO *self)
{
	int n;

	for (n = 0; n < NR_TDIS; n++) {
		const char *bdf = self->link.bdf[n];

		dev_write(bdf, "driver_override", "\n");
		if (dev_has(bdf, "driver"))
			dev_write(bdf, "driver/unbind", bdf);
	}
}

/* KVM_DEV_VFIO_FILE_ADD or _DEL, if there is a VM */
static int tell_kvm(VFIO *self, int what, int file)
{
	struct kvm_device_attr attr = {
		.group = KVM_DEV_VFIO_FILE,
		.attr = what,
		.addr = (uintptr_t)&file,
	};

	if (self->kvm_vfio < 0)
		return 0;
	return ioctl(self->kvm_vfio, KVM_SET_DEVICE_ATTR, &attr) ? -errno : 0;
}

static int open_by_iommufd(VFIO *self)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	const char *bdf = self->link.bdf[self->n];
	char path[PATH_LEN], name[NAME_LEN] = "";
	struct dirent *entry;
	int rc;
	DIR *dir;

	dev_path(path, bdf, "vfio-dev");
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "vfio", 4))
			snprintf(name, sizeof(name), "%.31s", entry->d_name);
	if (dir)
		closedir(dir);
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", name);
	self->device = open(path, O_RDWR | O_CLOEXEC);
	self->container = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (self->device < 0 || self->container < 0)
		return -ENOENT;
	bind.iommufd = self->container;
	rc = tell_kvm(self, KVM_DEV_VFIO_FILE_ADD, self->device);
	if (!rc && ioctl(self->device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		rc = -errno;
	return rc;
}

static int open_by_group(VFIO *self)
{
	const char *bdf = self->link.bdf[self->n];
	char path[PATH_LEN], name[NAME_LEN];
	int rc;

	dev_link(bdf, "iommu_group", name);
	snprintf(path, sizeof(path), "/dev/vfio/%s", name);
	self->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	self->group = open(path, O_RDWR | O_CLOEXEC);
	if (self->container < 0 || self->group < 0)
		return -ENOENT;
	if (ioctl(self->group, VFIO_GROUP_SET_CONTAINER, &self->container) ||
	    ioctl(self->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return -errno;
	rc = tell_kvm(self, KVM_DEV_VFIO_FILE_ADD, self->group);
	if (rc)
		return rc;
	self->device = ioctl(self->group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	return self->device < 0 ? -errno : 0;
}

static int open_device(VFIO *self, bool iommufd)
{
	return iommufd ? open_by_iommufd(self) : open_by_group(self);
}

/* A file that KVM was told of stays open until it is told of the end */
static void close_device(VFIO *self)
{
	int file = self->group >= 0 ? self->group : self->device;

	if (file >= 0)
		tell_kvm(self, KVM_DEV_VFIO_FILE_DEL, file);
	close_fd(&self->device);
	close_fd(&self->group);
	close_fd(&self->container);
}

static void end_vm(VFIO *self)
{
	close_fd(&self->kvm_vfio);
	close_fd(&self->vm);
	close_fd(&self->kvm);
}

/* Whether the kernel and the security processor agree that it is bound */
static bool is_bound(VFIO *self)
{
	char text[NAME_LEN];

	return !dev_read(self->link.bdf[self->n], "tsm/bound", text) &&
	       !strcmp(text, self->link.tsm) &&
	       knows(&self->link, self->n) == (CONNECTED | BOUND);
}

/* The same for that it is not, and is connected */
static bool is_unbound(VFIO *self)
{
	char text[NAME_LEN];

	return !dev_read(self->link.bdf[self->n], "tsm/bound", text) &&
	       !text[0] && knows(&self->link, self->n) == CONNECTED;
}

FIXTURE_SETUP(vfio)
{
	struct kvm_create_device create = { .type = KVM_DEV_TYPE_VFIO };
	char found[1][NAME_LEN], group[NAME_LEN];

	memset(self, 0, sizeof(*self));
	self->n = variant->n;
	self->container = -1;
	self->group = -1;
	self->device = -1;
	self->kvm = -1;
	self->vm = -1;
	self->kvm_vfio = -1;
	if (geteuid())
		SKIP(return, "needs root");
	if (find_devices(HOST_PORT_ID, found, 1) != 1)
		SKIP(return, "no host's port of an emulated platform");
	if (access(DRIVER, F_OK))
		SKIP(return, "no driver (CONFIG_TDISP_EMU_LINK)");
	if (read_text(OPT_IN, self->opt_in, sizeof(self->opt_in)))
		SKIP(return, "vfio-pci does not bind TDIs");
	if (variant->iommufd && access("/dev/iommu", F_OK))
		SKIP(return, "no /dev/iommu (CONFIG_IOMMUFD)");
	self->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (self->kvm < 0)
		SKIP(return, "no /dev/kvm");

	memcpy(self->link.port, found[0], NAME_LEN);
	ASSERT_EQ(0, find_tdis(&self->link));
	dev_link(self->link.bdf[0], "iommu_group", group);
	if (!group[0])
		SKIP(return, "no IOMMU");
	ASSERT_EQ(0, link_reset(&self->link));
	self->vm = ioctl(self->kvm, KVM_CREATE_VM, 0);
	ASSERT_LE(0, self->vm);
	ASSERT_EQ(0, ioctl(self->vm, KVM_CREATE_DEVICE, &create));
	self->kvm_vfio = create.fd;
	ASSERT_EQ(0, connect_to(&self->link, self->link.tsm));
	ASSERT_EQ(0, give_to_vfio(self, "1"));
}

FIXTURE_TEARDOWN(vfio)
{
	close_device(self);
	end_vm(self);
	if (!self->link.tsm[0])
		return;
	take_from_vfio(self);
	write_text(OPT_IN, self->opt_in);
	EXPECT_EQ(0, link_reset(&self->link));
	unmap_mailbox(&self->link);
}

TEST_F(vfio, bound_while_open)
{
	EXPECT_TRUE(is_unbound(self));
	ASSERT_EQ(0, open_device(self, variant->iommufd));
	EXPECT_TRUE(is_bound(self));
	/* The VM is not its last user */
	end_vm(self);
	EXPECT_TRUE(is_bound(self));
	close_device(self);
	EXPECT_TRUE(is_unbound(self));
}

TEST_F(vfio, without_vm)
{
	end_vm(self);
	ASSERT_EQ(0, open_device(self, variant->iommufd));
	EXPECT_TRUE(is_unbound(self));
}

TEST_F(vfio, without_opt_in)
{
	ASSERT_EQ(0, give_to_vfio(self, "0"));
	ASSERT_EQ(0, open_device(self, variant->iommufd));
	EXPECT_TRUE(is_unbound(self));
}

TEST_F(vfio, without_connection)
{
	ASSERT_EQ(0, disconnect_from(&self->link, self->link.tsm));
	ASSERT_EQ(0, open_device(self, variant->iommufd));
	EXPECT_EQ(0, knows(&self->link, self->n));
}

TEST_F(vfio, bind_fails)
{
	ASSERT_EQ(0, inject(&self->link, CMD_BIND, INJECT_ERROR,
			    RESULT_FAILED));
	EXPECT_EQ(-EIO, open_device(self, variant->iommufd));
	EXPECT_TRUE(is_unbound(self));
	close_device(self);
	EXPECT_EQ(0, open_device(self, variant->iommufd));
	EXPECT_TRUE(is_bound(self));
}

TEST_F(vfio, bind_without_answer)
{
	ASSERT_EQ(0, inject(&self->link, CMD_BIND, INJECT_NO_ANSWER, 0));
	EXPECT_EQ(-ETIMEDOUT, open_device(self, variant->iommufd));
	EXPECT_TRUE(is_unbound(self));
}

/* Bound again afterwards, and not in between */
TEST_F(vfio, reset)
{
	ASSERT_EQ(0, open_device(self, variant->iommufd));
	ASSERT_EQ(0, inject(&self->link, CMD_BIND, INJECT_ERROR,
			    RESULT_FAILED));
	ASSERT_EQ(0, ioctl(self->device, VFIO_DEVICE_RESET));
	EXPECT_TRUE(is_unbound(self));
	ASSERT_EQ(0, ioctl(self->device, VFIO_DEVICE_RESET));
	EXPECT_TRUE(is_bound(self));
	ASSERT_EQ(0, ioctl(self->device, VFIO_DEVICE_RESET));
	EXPECT_TRUE(is_bound(self));
}

TEST_F(vfio, disconnect_while_open)
{
	ASSERT_EQ(0, open_device(self, variant->iommufd));
	ASSERT_TRUE(is_bound(self));
	ASSERT_EQ(0, disconnect_from(&self->link, self->link.tsm));
	EXPECT_EQ(0, knows(&self->link, 0));
	EXPECT_EQ(0, knows(&self->link, 1));

	ASSERT_EQ(0, connect_to(&self->link, self->link.tsm));
	EXPECT_TRUE(is_unbound(self));
	ASSERT_EQ(0, ioctl(self->device, VFIO_DEVICE_RESET));
	EXPECT_TRUE(is_bound(self));
}

TEST_F(vfio, tsm_gone_while_open)
{
	LINK *link = &self->link;

	ASSERT_EQ(0, open_device(self, variant->iommufd));
	ASSERT_TRUE(is_bound(self));
	ASSERT_EQ(0, write_text(DRIVER "/unbind", link->port));
	EXPECT_EQ(0, knows(link, self->n));
	close_device(self);

	ASSERT_EQ(0, write_text(DRIVER "/bind", link->port));
	ASSERT_EQ(0, find_tsm(link->port, link->tsm));
	ASSERT_EQ(0, connect_to(link, link->tsm));
	ASSERT_EQ(0, open_device(self, variant->iommufd));
	EXPECT_TRUE(is_bound(self));
}

/* No binding outlives its VM: without an answer the session goes as well */
TEST_F(vfio, unbind_without_answer)
{
	ASSERT_EQ(0, open_device(self, variant->iommufd));
	ASSERT_TRUE(is_bound(self));
	ASSERT_EQ(0, inject(&self->link, CMD_UNBIND, INJECT_NO_ANSWER, 0));
	close_device(self);
	EXPECT_EQ(0, knows(&self->link, self->n));
	EXPECT_EQ(CONNECTED, knows(&self->link, !self->n));

	EXPECT_EQ(-ENOTCONN, open_device(self, variant->iommufd));
	close_device(self);
	ASSERT_EQ(0, disconnect_from(&self->link, self->link.tsm));
	ASSERT_EQ(0, connect_to(&self->link, self->link.tsm));
	EXPECT_EQ(0, open_device(self, variant->iommufd));
	EXPECT_TRUE(is_bound(self));
}

static void *unbind_vfio(void *data)
{
	VFIO *self = data;
	const char *bdf = self->link.bdf[self->n];

	return (void *)(long)dev_write(bdf, "driver/unbind", bdf);
}

/* That waits for the user, and so the binding ends before the device is gone */
TEST_F(vfio, driver_unbound_while_open)
{
	pthread_t thread;
	void *rc;

	ASSERT_EQ(0, open_device(self, variant->iommufd));
	ASSERT_EQ(0, pthread_create(&thread, NULL, unbind_vfio, self));
	pause_ms(300);
	EXPECT_TRUE(is_bound(self));
	close_device(self);
	ASSERT_EQ(0, pthread_join(thread, &rc));
	EXPECT_EQ(0, (long)rc);
	EXPECT_TRUE(is_unbound(self));
}

TEST_HARNESS_MAIN
