// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host side ABI of PCI/TSM: /sys/class/tsm and the tsm/ attributes of PCI
 * devices. TSMs and the PCI device come from the tsm-test module
 * (CONFIG_TSM_TEST), no particular hardware is required.
 *
 * A test that finds the module, but not the attribute it is about, fails: the
 * kernel that brings the module has the attributes as well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "text.h"

#define DEBUGFS "/sys/kernel/debug"
#define TEST_DIR DEBUGFS "/tsm_test"

/* Bits of /proc/sys/kernel/tainted: oops (D) and WARN (W) */
#define TAINT_OOPS (1UL << 7)
#define TAINT_WARNING (1UL << 9)

/* Longer than any wait of a correct kernel, shorter than the hung task report */
#define STUCK_MS 6000

#define NAME_LEN 32
#define BDF_LEN 32

/* A knob of the test module */
static int test_write(const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), TEST_DIR "/%s", file);
	return write_text(path, text);
}

/* A counter of the test module, or -errno */
static long test_count(const char *file)
{
	char path[128], buf[32];
	int rc;

	snprintf(path, sizeof(path), TEST_DIR "/nr_%s", file);
	rc = read_text(path, buf, sizeof(buf));
	return rc ? rc : strtol(buf, NULL, 10);
}

static unsigned long kernel_taint(void)
{
	char buf[32];

	if (read_text("/proc/sys/kernel/tainted", buf, sizeof(buf)))
		return 0;
	return strtoul(buf, NULL, 10) & (TAINT_OOPS | TAINT_WARNING);
}

static void pause_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

/* Reason to skip, or NULL if the test module is there */
static const char *test_module_missing(void)
{
	if (geteuid())
		return "needs root";
	if (access("/sys/class/tsm", F_OK))
		return "no /sys/class/tsm (CONFIG_PCI_TSM)";
	if (access(DEBUGFS "/sleep_time", F_OK) && access(TEST_DIR, F_OK))
		mount("none", DEBUGFS, "debugfs", 0, NULL);
	if (access(TEST_DIR, F_OK) &&
	    system("modprobe -q tsm-test >/dev/null 2>&1"))
		return "no tsm-test module (CONFIG_TSM_TEST)";
	if (access(TEST_DIR, F_OK))
		return "no debugfs tsm_test (CONFIG_DEBUG_FS)";
	if (kernel_taint() & TAINT_OOPS)
		return "the kernel has oopsed, its PCI locks may be stuck";
	return NULL;
}

/* Remove everything that a test may have left behind. Not after an oops. */
static void test_reset(void)
{
	char list[256] = "", *name, *next;
	int fd;

	if (kernel_taint() & TAINT_OOPS)
		return;

	test_write("connect_delay_ms", "0");
	test_write("connect_errno", "0");
	test_write("remove_delay_ms", "0");
	test_write("unregister_hold_ms", "0");
	test_write("endpoint", "0");

	fd = open(TEST_DIR "/register", O_RDONLY);
	if (fd < 0)
		return;
	if (read(fd, list, sizeof(list) - 1) < 0)
		list[0] = '\0';
	close(fd);
	for (name = strtok_r(list, "\n", &next); name;
	     name = strtok_r(NULL, "\n", &next))
		test_write("unregister", name);
}

/* Register a TSM and find out its name: 0 or -errno */
static int tsm_register(const char *kind, char name[NAME_LEN])
{
	char before[256] = "", after[256] = "", *line, *next;
	int fd, rc;

	fd = open(TEST_DIR "/register", O_RDONLY);
	if (fd < 0)
		return -errno;
	if (read(fd, before, sizeof(before) - 1) < 0)
		rc = -errno;
	else
		rc = test_write("register", kind);
	close(fd);
	if (rc)
		return rc;

	fd = open(TEST_DIR "/register", O_RDONLY);
	if (fd < 0)
		return -errno;
	rc = read(fd, after, sizeof(after) - 1) < 0 ? -errno : 0;
	close(fd);
	if (rc)
		return rc;

	for (line = strtok_r(after, "\n", &next); line;
	     line = strtok_r(NULL, "\n", &next)) {
		char known[NAME_LEN + 1];

		/* Names are tsmN: with the newline none is a part of another */
		snprintf(known, sizeof(known), "%.30s\n", line);
		if (strstr(before, known))
			continue;
		snprintf(name, NAME_LEN, "%.31s", line);
		return 0;
	}
	return -ENODEV;
}

static void tsm_path(char path[128], const char *name, const char *attr)
{
	snprintf(path, 128, "/sys/class/tsm/%s/%s", name, attr);
}

/* Value of an attribute of a TSM: 0 or -errno */
static int tsm_read(const char *name, const char *attr, char buf[64])
{
	char path[128];

	tsm_path(path, name, attr);
	return read_text(path, buf, 64);
}

static bool tsm_has(const char *name, const char *attr)
{
	char path[128];

	tsm_path(path, name, attr);
	return !access(path, F_OK);
}

static void fn_path(char path[128], const char *bdf, const char *attr)
{
	snprintf(path, 128, "/sys/bus/pci/devices/%s/%s", bdf, attr);
}

static int fn_read(const char *bdf, const char *attr, char buf[64])
{
	char path[128];

	fn_path(path, bdf, attr);
	return read_text(path, buf, 64);
}

static int fn_write(const char *bdf, const char *attr, const char *text)
{
	char path[128];

	fn_path(path, bdf, attr);
	return write_text(path, text);
}

static bool fn_has(const char *bdf, const char *attr)
{
	char path[128];

	fn_path(path, bdf, attr);
	return !access(path, F_OK);
}

/* Add the test device: the addresses of functions 0 and 1, 0 or -errno */
static int endpoint_add(char fn0[BDF_LEN], char fn1[BDF_LEN])
{
	int rc = test_write("endpoint", "1");

	if (rc)
		return rc;
	rc = read_text(TEST_DIR "/endpoint", fn0, BDF_LEN);
	if (rc)
		return rc;
	if (!fn0[0])
		return -ENODEV;
	strcpy(fn1, fn0);
	fn1[strlen(fn1) - 1] = '1';
	return 0;
}

/* Start a process that does one write. It exits with the errno. */
static pid_t write_start(const char *path, const char *text)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	_exit(-write_text(path, text));
}

static pid_t read_start(const char *path)
{
	char buf[64];
	pid_t pid = fork();

	if (pid)
		return pid;
	_exit(-read_text(path, buf, sizeof(buf)));
}

/* The errno a process exited with, or -1 if it still runs after @ms */
static int process_wait(pid_t pid, long ms)
{
	int status;

	for (;; ms -= 20) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
		if (ms <= 0)
			return -1;
		pause_ms(20);
	}
}

/* /sys/class/tsm/tsmN/pci_mode, for each kind of TSM */

FIXTURE(pci_mode)
{
	char name[NAME_LEN];
	char path[128];
	unsigned long taint;
};

FIXTURE_VARIANT(pci_mode)
{
	const char *kind;
};

FIXTURE_VARIANT_ADD(pci_mode, link)
{
	.kind = "link",
};

FIXTURE_VARIANT_ADD(pci_mode, devsec)
{
	.kind = "devsec",
};

FIXTURE_SETUP(pci_mode)
{
	const char *missing = test_module_missing();

	if (missing)
		SKIP(return, "%s", missing);
	test_reset();
	self->taint = kernel_taint();
	ASSERT_EQ(0, tsm_register(variant->kind, self->name));
	tsm_path(self->path, self->name, "pci_mode");
}

FIXTURE_TEARDOWN(pci_mode)
{
	test_reset();
	EXPECT_EQ(self->taint, kernel_taint());
}

TEST_F(pci_mode, reads_kind)
{
	char buf[64];

	ASSERT_EQ(0, tsm_read(self->name, "pci_mode", buf));
	EXPECT_STREQ(variant->kind, buf);
}

TEST_F(pci_mode, is_read_only)
{
	struct stat st;
	pid_t pid;

	ASSERT_EQ(0, stat(self->path, &st));
	EXPECT_EQ(0444, st.st_mode & 07777);
	EXPECT_EQ(-EACCES, write_text(self->path, "link"));

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		char buf[64];
		int rc;

		if (setgid(65534) || setuid(65534))
			_exit(255);
		rc = read_text(self->path, buf, sizeof(buf));
		_exit(rc ? -rc : -write_text(self->path, "link"));
	}
	EXPECT_EQ(EACCES, process_wait(pid, STUCK_MS));
}

TEST_F(pci_mode, goes_with_the_tsm)
{
	char buf[64];
	int fd;

	fd = open(self->path, O_RDONLY);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, test_write("unregister", self->name));
	EXPECT_EQ(-1, read(fd, buf, sizeof(buf)));
	EXPECT_EQ(ENODEV, errno);
	close(fd);
	EXPECT_EQ(-ENOENT, tsm_read(self->name, "pci_mode", buf));
}

TEST_F(pci_mode, unreadable_while_unregistering)
{
	char path[128], buf[64];
	pid_t pid;

	ASSERT_EQ(0, tsm_read(self->name, "pci_mode", buf));
	ASSERT_EQ(0, test_write("unregister_hold_ms", "2000"));
	snprintf(path, sizeof(path), TEST_DIR "/unregister");
	pid = write_start(path, self->name);
	ASSERT_LE(0, pid);
	pause_ms(700);
	EXPECT_EQ(-ENXIO, tsm_read(self->name, "pci_mode", buf));
	/* Proves that the read came before the TSM was gone */
	EXPECT_TRUE(tsm_has(self->name, "uevent"));
	EXPECT_EQ(0, process_wait(pid, STUCK_MS));
	EXPECT_FALSE(tsm_has(self->name, "uevent"));
}

/* Link TSMs and a device with TEE-IO support */

FIXTURE(link)
{
	char tsm[NAME_LEN];
	char fn0[BDF_LEN];
	char fn1[BDF_LEN];
	unsigned long taint;
};

FIXTURE_SETUP(link)
{
	const char *missing = test_module_missing();

	if (missing)
		SKIP(return, "%s", missing);
	test_reset();
	self->taint = kernel_taint();
	ASSERT_EQ(0, tsm_register("link", self->tsm));
	ASSERT_EQ(0, endpoint_add(self->fn0, self->fn1));
}

FIXTURE_TEARDOWN(link)
{
	test_reset();
	EXPECT_EQ(self->taint, kernel_taint());
}

TEST_F(link, no_pci_mode_without_pci_operations)
{
	char other[NAME_LEN];

	ASSERT_EQ(0, tsm_register("none", other));
	EXPECT_TRUE(tsm_has(other, "uevent"));
	EXPECT_FALSE(tsm_has(other, "pci_mode"));
	EXPECT_TRUE(tsm_has(self->tsm, "pci_mode"));
}

TEST_F(link, attributes_follow_the_tsm)
{
	char tsm[NAME_LEN];

	/* The device came after the TSM */
	EXPECT_TRUE(fn_has(self->fn0, "tsm/connect"));
	EXPECT_TRUE(fn_has(self->fn0, "authenticated"));
	EXPECT_FALSE(fn_has(self->fn1, "tsm"));
	EXPECT_FALSE(fn_has(self->fn1, "authenticated"));

	ASSERT_EQ(0, test_write("unregister", self->tsm));
	EXPECT_FALSE(fn_has(self->fn0, "tsm"));
	EXPECT_FALSE(fn_has(self->fn0, "authenticated"));

	/* Other kinds of TSM do not connect devices */
	ASSERT_EQ(0, tsm_register("none", tsm));
	EXPECT_FALSE(fn_has(self->fn0, "tsm"));
	ASSERT_EQ(0, tsm_register("devsec", tsm));
	EXPECT_FALSE(fn_has(self->fn0, "tsm/connect"));

	/* Now the TSM comes after the device */
	ASSERT_EQ(0, tsm_register("link", tsm));
	EXPECT_TRUE(fn_has(self->fn0, "tsm/connect"));
	EXPECT_TRUE(fn_has(self->fn0, "authenticated"));
	EXPECT_FALSE(fn_has(self->fn1, "tsm"));
}

TEST_F(link, connect_rejects_bad_names)
{
	char devsec[NAME_LEN], none[NAME_LEN], buf[64];
	long connects = test_count("connect");

	ASSERT_EQ(0, tsm_register("devsec", devsec));
	ASSERT_EQ(0, tsm_register("none", none));
	EXPECT_EQ(-EINVAL, fn_write(self->fn0, "tsm/connect", "foo"));
	EXPECT_EQ(-EINVAL, fn_write(self->fn0, "tsm/connect", "tsm"));
	EXPECT_EQ(-EINVAL, fn_write(self->fn0, "tsm/connect", "\n"));
	EXPECT_EQ(-ENXIO, fn_write(self->fn0, "tsm/connect", "tsm99999"));
	EXPECT_EQ(-ENXIO, fn_write(self->fn0, "tsm/connect", devsec));
	EXPECT_EQ(-ENXIO, fn_write(self->fn0, "tsm/connect", none));
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/connect", buf));
	EXPECT_STREQ("", buf);
	EXPECT_EQ(connects, test_count("connect"));
}

TEST_F(link, connect)
{
	long probes = test_count("probe"), connects = test_count("connect");
	char buf[64];

	ASSERT_EQ(0, fn_write(self->fn0, "tsm/connect", self->tsm));
	EXPECT_EQ(connects + 1, test_count("connect"));
	EXPECT_EQ(probes + 2, test_count("probe"));

	EXPECT_EQ(0, fn_read(self->fn0, "tsm/connect", buf));
	EXPECT_STREQ(self->tsm, buf);
	EXPECT_EQ(0, fn_read(self->fn0, "authenticated", buf));
	EXPECT_STREQ(self->tsm, buf);
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/dsm", buf));
	EXPECT_STREQ(self->fn0, buf);
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/bound", buf));
	EXPECT_STREQ("", buf);

	/* The dependent function cannot connect, but shows its DSM */
	EXPECT_FALSE(fn_has(self->fn1, "tsm/connect"));
	EXPECT_EQ(0, fn_read(self->fn1, "tsm/dsm", buf));
	EXPECT_STREQ(self->fn0, buf);
	EXPECT_EQ(0, fn_read(self->fn1, "tsm/bound", buf));
	EXPECT_STREQ("", buf);

	EXPECT_EQ(-EBUSY, fn_write(self->fn0, "tsm/connect", self->tsm));
	EXPECT_EQ(connects + 1, test_count("connect"));
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/connect", buf));
	EXPECT_STREQ(self->tsm, buf);
}

TEST_F(link, connect_fails)
{
	long probes = test_count("probe"), removes = test_count("remove");
	char number[16], buf[64];

	snprintf(number, sizeof(number), "%d", EIO);
	ASSERT_EQ(0, test_write("connect_errno", number));
	EXPECT_EQ(-EIO, fn_write(self->fn0, "tsm/connect", self->tsm));
	EXPECT_EQ(probes + 1, test_count("probe"));
	EXPECT_EQ(removes + 1, test_count("remove"));
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/connect", buf));
	EXPECT_STREQ("", buf);
	EXPECT_FALSE(fn_has(self->fn1, "tsm"));

	ASSERT_EQ(0, test_write("connect_errno", "0"));
	EXPECT_EQ(0, fn_write(self->fn0, "tsm/connect", self->tsm));
}

TEST_F(link, disconnect)
{
	long removes = test_count("remove");
	long disconnects = test_count("disconnect");
	char buf[64];

	EXPECT_EQ(-ENXIO, fn_write(self->fn0, "tsm/disconnect", self->tsm));
	ASSERT_EQ(0, fn_write(self->fn0, "tsm/connect", self->tsm));
	EXPECT_EQ(-EINVAL, fn_write(self->fn0, "tsm/disconnect", "foo"));
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/connect", buf));
	EXPECT_STREQ(self->tsm, buf);
	EXPECT_EQ(disconnects, test_count("disconnect"));

	EXPECT_EQ(0, fn_write(self->fn0, "tsm/disconnect", self->tsm));
	EXPECT_EQ(disconnects + 1, test_count("disconnect"));
	EXPECT_EQ(removes + 2, test_count("remove"));
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/connect", buf));
	EXPECT_STREQ("", buf);
	EXPECT_EQ(0, fn_read(self->fn0, "authenticated", buf));
	EXPECT_STREQ("", buf);
	EXPECT_FALSE(fn_has(self->fn1, "tsm"));

	EXPECT_EQ(0, fn_write(self->fn0, "tsm/connect", self->tsm));
}

TEST_F(link, remove_connected_device)
{
	long removes = test_count("remove");
	long disconnects = test_count("disconnect");

	ASSERT_EQ(0, fn_write(self->fn0, "tsm/connect", self->tsm));
	ASSERT_EQ(0, test_write("endpoint", "0"));
	EXPECT_FALSE(fn_has(self->fn0, "uevent"));
	EXPECT_EQ(disconnects + 1, test_count("disconnect"));
	EXPECT_EQ(removes + 2, test_count("remove"));
}

TEST_F(link, unregister_connected_tsm)
{
	long removes = test_count("remove");
	long disconnects = test_count("disconnect");

	ASSERT_EQ(0, fn_write(self->fn0, "tsm/connect", self->tsm));
	ASSERT_EQ(0, test_write("unregister", self->tsm));
	EXPECT_EQ(disconnects + 1, test_count("disconnect"));
	EXPECT_EQ(removes + 2, test_count("remove"));
	EXPECT_FALSE(fn_has(self->fn0, "tsm"));
	EXPECT_FALSE(fn_has(self->fn1, "tsm"));
	EXPECT_TRUE(fn_has(self->fn0, "uevent"));
}

/*
 * The PCI core let go of the TSM, but the TSM still has its name. The
 * attributes are there because of the other TSM.
 */
TEST_F(link, no_connect_to_departing_tsm)
{
	char departing[NAME_LEN], buf[64];
	pid_t pid;
	int rc;

	ASSERT_EQ(0, tsm_register("link", departing));
	ASSERT_EQ(0, test_write("unregister_hold_ms", "2000"));
	pid = write_start(TEST_DIR "/unregister", departing);
	ASSERT_LE(0, pid);
	pause_ms(700);
	rc = fn_write(self->fn0, "tsm/connect", departing);
	EXPECT_EQ(-ENXIO, rc);
	/* Proves that the connect came before the TSM was gone */
	EXPECT_TRUE(tsm_has(departing, "uevent"));
	/* Do not leave the device with a TSM that is about to be freed */
	if (!rc)
		fn_write(self->fn0, "tsm/disconnect", departing);
	EXPECT_EQ(0, process_wait(pid, STUCK_MS));
	EXPECT_FALSE(tsm_has(departing, "uevent"));
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/connect", buf));
	EXPECT_STREQ("", buf);
}

/*
 * The lock of the PCI core goes from a slow connect to unregister, which hides
 * the attributes, with a second connect behind it in the queue.
 */
TEST_F(link, unregister_while_connect_waits)
{
	pid_t slow, unregister, second;
	char path[128];
	int rc;

	ASSERT_EQ(0, test_write("connect_delay_ms", "2000"));
	fn_path(path, self->fn0, "tsm/connect");
	slow = write_start(path, self->tsm);
	ASSERT_LE(0, slow);
	pause_ms(500);
	unregister = write_start(TEST_DIR "/unregister", self->tsm);
	ASSERT_LE(0, unregister);
	pause_ms(500);
	second = write_start(path, self->tsm);
	ASSERT_LE(0, second);

	EXPECT_EQ(0, process_wait(slow, STUCK_MS));
	rc = process_wait(unregister, STUCK_MS);
	EXPECT_EQ(0, rc) {
		TH_LOG("unregister and connect wait for each other");
	}
	/* The wait for the lock ends with a signal, so a deadlock does too */
	if (rc < 0)
		kill(second, SIGKILL);
	EXPECT_EQ(ENODEV, process_wait(second, STUCK_MS));
	if (rc < 0)
		process_wait(unregister, STUCK_MS);
	EXPECT_FALSE(fn_has(self->fn0, "tsm"));
}

/* Disconnect hides the attributes of function 1 while one of them is read */
TEST_F(link, disconnect_while_read_waits)
{
	pid_t disconnect, reader;
	char path[128];
	int rc;

	ASSERT_EQ(0, fn_write(self->fn0, "tsm/connect", self->tsm));
	ASSERT_EQ(0, test_write("remove_delay_ms", "1000"));
	fn_path(path, self->fn0, "tsm/disconnect");
	disconnect = write_start(path, self->tsm);
	ASSERT_LE(0, disconnect);
	pause_ms(400);
	fn_path(path, self->fn1, "tsm/dsm");
	reader = read_start(path);
	ASSERT_LE(0, reader);

	rc = process_wait(disconnect, STUCK_MS);
	EXPECT_EQ(0, rc) {
		TH_LOG("disconnect and a read of dsm wait for each other");
	}
	if (rc < 0)
		kill(reader, SIGKILL);
	EXPECT_EQ(ENODEV, process_wait(reader, STUCK_MS));
	if (rc < 0)
		process_wait(disconnect, STUCK_MS);
	EXPECT_FALSE(fn_has(self->fn1, "tsm"));
}

/*
 * Devsec TSMs. The order matters: a kernel that has no idea of their contexts
 * oopses with the lock of the PCI core held, and runs no test after that.
 */

FIXTURE(devsec)
{
	char tsm[NAME_LEN];
	char fn0[BDF_LEN];
	char fn1[BDF_LEN];
	unsigned long taint;
};

FIXTURE_SETUP(devsec)
{
	const char *missing = test_module_missing();

	if (missing)
		SKIP(return, "%s", missing);
	test_reset();
	self->taint = kernel_taint();
	ASSERT_EQ(0, tsm_register("devsec", self->tsm));
	ASSERT_EQ(0, endpoint_add(self->fn0, self->fn1));
	ASSERT_EQ(0, test_write("lock", self->tsm));
}

FIXTURE_TEARDOWN(devsec)
{
	test_reset();
	EXPECT_EQ(self->taint, kernel_taint());
}

TEST_F(devsec, unregister_with_locked_device)
{
	long unlocks = test_count("unlock");

	ASSERT_EQ(0, test_write("unregister", self->tsm));
	EXPECT_EQ(unlocks + 1, test_count("unlock"));
	EXPECT_TRUE(fn_has(self->fn0, "uevent"));

	/* The context is gone: the device can be locked again */
	ASSERT_EQ(0, tsm_register("devsec", self->tsm));
	EXPECT_EQ(0, test_write("lock", self->tsm));
	EXPECT_EQ(-EBUSY, test_write("lock", self->tsm));
}

TEST_F(devsec, remove_locked_device)
{
	long unlocks = test_count("unlock");

	ASSERT_EQ(0, test_write("endpoint", "0"));
	EXPECT_EQ(unlocks + 1, test_count("unlock"));
	EXPECT_FALSE(fn_has(self->fn0, "uevent"));
	EXPECT_EQ(0, test_write("unregister", self->tsm));
	EXPECT_EQ(unlocks + 1, test_count("unlock"));
}

TEST_F(devsec, link_attributes_ignore_locked_device)
{
	long unlocks = test_count("unlock");
	char link[NAME_LEN], buf[64];

	ASSERT_EQ(0, tsm_register("link", link));
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/connect", buf));
	EXPECT_STREQ("", buf);
	EXPECT_EQ(0, fn_read(self->fn0, "authenticated", buf));
	EXPECT_STREQ("", buf);
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/dsm", buf));
	EXPECT_STREQ("", buf);
	EXPECT_EQ(0, fn_read(self->fn0, "tsm/bound", buf));
	EXPECT_STREQ("", buf);
	EXPECT_EQ(-ENXIO, fn_write(self->fn0, "tsm/disconnect", self->tsm));
	EXPECT_EQ(-EBUSY, fn_write(self->fn0, "tsm/connect", link));

	/* The departure of the link TSM leaves the device locked */
	ASSERT_EQ(0, test_write("unregister", link));
	EXPECT_EQ(unlocks, test_count("unlock"));
	EXPECT_EQ(-EBUSY, test_write("lock", self->tsm));
}

TEST_HARNESS_MAIN
