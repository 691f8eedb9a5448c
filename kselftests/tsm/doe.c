// SPDX-License-Identifier: GPL-2.0-only
/*
 * Data Object Exchange with a TDI, and a TDI that is taken away in the midst of
 * one: by its driver, which talks to it by the PCI core, and by somebody who left
 * an exchange unfinished. The removal waits or the exchange ends, and the TDI that
 * comes back answers discovery as if nothing had been.
 */
#include <errno.h>
#include <fcntl.h>

#include "../kselftest_harness.h"
#include "race.h"

/* PCIe r6.1, sections 6.30 and 7.9.24 */
#define CAP_DOE 0x2e
#define DOE_CTRL 0x08
#define DOE_CTRL_GO (1U << 31)
#define DOE_STATUS 0x0c
#define DOE_STATUS_READY (1U << 31)
#define DOE_WRITE 0x10
#define DOE_READ 0x14

/* Protocols of PCI-SIG (vendor 1) */
enum { DISCOVERY, CMA, SECURED_CMA, NR_PROTOCOLS };

/*
 * What the PCI core waits for an answer, in microseconds. The platform never
 * answers SECURED_CMA.
 */
#define DOE_TIMEOUT_US 1000000

FIXTURE(doe)
{
	struct machine m;
	struct tdi *t;
	struct tdi_test_doe answer;
};

FIXTURE_SETUP(doe)
{
	MACHINE_SETUP(NEED_PLATFORM);
	test_bind(self->t);
	if (tdi_doe(self->t, DISCOVERY, "\0\0\0", 4, &self->answer) ==
	    -EOPNOTSUPP)
		SKIP(return, "the TDI has no DOE mailbox, or the kernel no CONFIG_PCI_DOE");
}

MACHINE_TEARDOWN(doe)

/* The protocols, as the mailbox lists them: each names the next index */
#define test_discovery(t)                                                     \
	do {                                                                  \
		struct tdi_test_doe _answer;                                  \
		__u32 _index = 0, _n = 0;                                     \
		do {                                                          \
			ASSERT_EQ(0, tdi_doe(t, DISCOVERY, &_index, 4,        \
					     &_answer));                      \
			EXPECT_EQ(4, _answer.size);                           \
			EXPECT_EQ(1 | _n << 16, _answer.data[0] & 0xffffff);  \
			_index = _answer.data[0] >> 24;                       \
			_n++;                                                 \
		} while (_index && _n < NR_PROTOCOLS);                        \
		EXPECT_EQ(0, _index);                                         \
		EXPECT_EQ(NR_PROTOCOLS, _n);                                  \
	} while (0)

TEST_F(doe, discovery)
{
	test_discovery(self->t);
}

/* There is no SPDM: a request of version 1.1, GET_VERSION, is not supported */
TEST_F(doe, cma)
{
	__u32 request = 0x8411;

	ASSERT_EQ(0, tdi_doe(self->t, CMA, &request, 4, &self->answer));
	EXPECT_EQ(4, self->answer.size);
	EXPECT_EQ(0x84077f11, self->answer.data[0]);
	test_discovery(self->t);
}

/* Nobody answers: it costs a second, and the next exchange is as good as ever */
TEST_F(doe, no_answer)
{
	__u32 request = 0x8411;

	EXPECT_EQ(-EIO, tdi_doe(self->t, SECURED_CMA, &request, 4,
				&self->answer));
	test_discovery(self->t);
}

struct exchange {
	struct tdi t;
	pthread_t thread;
	atomic_bool started, ended;
	int rc;
};

static void *run_exchange(void *arg)
{
	struct exchange *x = arg;
	struct tdi_test_doe answer;
	__u32 request = 0x8411;

	atomic_store(&x->started, true);
	x->rc = tdi_doe(&x->t, SECURED_CMA, &request, 4, &answer);
	atomic_store(&x->ended, true);
	return NULL;
}

/* Hot-unplug in an exchange that is under way for a second */
TEST_F(doe, remove_in_exchange)
{
	struct exchange x = { .t = *self->t };
	long splats = kernel_splats();
	bool early;

	ASSERT_EQ(0, pthread_create(&x.thread, NULL, run_exchange, &x));
	while (!atomic_load(&x.started))
		usleep(1000);
	usleep(DOE_TIMEOUT_US / 10);
	early = atomic_load(&x.ended);
	EXPECT_EQ(0, tdi_write(self->t, "remove", "1"));
	/* The mailbox is gone: nobody may be waiting for it */
	EXPECT_TRUE(atomic_load(&x.ended));
	pthread_join(x.thread, NULL);
	EXPECT_FALSE(early)
	{
		TH_LOG("the exchange was over before: %d", x.rc);
	}
	/* Not -ENODEV, as for one that came when the TDI was gone already */
	EXPECT_EQ(-EIO, x.rc);
	EXPECT_EQ(-ENODEV, tdi_doe(self->t, DISCOVERY, "\0\0\0", 4,
				   &self->answer));
	tdi_close(self->t);

	ASSERT_EQ(0, bus_rescan());
	ASSERT_EQ(0, tdi_reset(&self->m, self->t));
	test_bind(self->t);
	test_discovery(self->t);
	EXPECT_EQ(splats, kernel_splats());
}

/* Configuration space, by which root can talk to the mailbox as well */
struct raw {
	int fd;
	int at; /* the capability */
};

static int raw_open(struct raw *raw, const struct tdi *t)
{
	char path[TEXT_LEN];
	__u32 head;
	int at = 0x100;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", t->bdf);
	raw->fd = open(path, O_RDWR | O_CLOEXEC);
	if (raw->fd < 0)
		return -errno;
	while (at && pread(raw->fd, &head, sizeof(head), at) == sizeof(head)) {
		if ((head & 0xffff) == CAP_DOE) {
			raw->at = at;
			return 0;
		}
		at = head >> 20;
	}
	close(raw->fd);
	return -ENXIO;
}

static int raw_write(const struct raw *raw, int reg, __u32 value)
{
	return pwrite(raw->fd, &value, sizeof(value), raw->at + reg) ==
	       sizeof(value) ? 0 : -EIO;
}

static __u32 raw_read(const struct raw *raw, int reg)
{
	__u32 value = ~0U;

	if (pread(raw->fd, &value, sizeof(value), raw->at + reg) != sizeof(value))
		return ~0U;
	return value;
}

/* Discovery, as far as @dwords: 3 to write, one to start, 3 to read */
static int raw_discovery(const struct raw *raw, int dwords)
{
	static const __u32 request[] = { 1, 3, 0 };
	int i, rc = 0;

	for (i = 0; !rc && i < dwords; i++) {
		if (i < 3) {
			rc = raw_write(raw, DOE_WRITE, request[i]);
		} else if (i == 3) {
			rc = raw_write(raw, DOE_CTRL, DOE_CTRL_GO);
		} else {
			raw_read(raw, DOE_READ);
			rc = raw_write(raw, DOE_READ, 0);
		}
	}
	return rc;
}

/* Hot-unplug with an exchange left unfinished, wherever that was */
TEST_F(doe, remove_unfinished)
{
	long splats = kernel_splats();
	struct raw raw;
	int dwords;

	for (dwords = 1; dwords < 7; dwords++) {
		ASSERT_EQ(0, raw_open(&raw, self->t));
		EXPECT_EQ(0, raw_discovery(&raw, dwords));
		EXPECT_EQ(dwords > 3,
			  !!(raw_read(&raw, DOE_STATUS) & DOE_STATUS_READY));
		ASSERT_EQ(0, tdi_remove(self->t));
		close(raw.fd);
		ASSERT_EQ(0, bus_rescan());
		ASSERT_EQ(0, tdi_reset(&self->m, self->t));
		test_bind(self->t);
		test_discovery(self->t);
	}
	EXPECT_EQ(splats, kernel_splats());
}

/* An exchange; the driver may be gone, and come back */
static int step_exchange(struct side *s)
{
	struct tdi t = { .fd = -1 };
	struct tdi_test_doe answer;
	__u32 index = 0;
	char path[TEXT_LEN];
	int rc;

	snprintf(path, sizeof(path), "/dev/tdi_test-%s", s->t->bdf);
	t.fd = open(path, O_RDWR | O_CLOEXEC);
	if (t.fd < 0)
		return -errno;
	rc = tdi_doe(&t, DISCOVERY, &index, 4, &answer);
	if (!rc && (answer.data[0] & 0xffffff) != 1)
		rc = -EBADMSG;
	tdi_close(&t);
	return rc;
}

/* An exchange takes some milliseconds: now it gets that long, now it does not */
static int step_stay_remove(struct side *s)
{
	usleep(1000 << s->done % 8);
	return step_remove_rescan(s);
}

static int step_raw_exchange(struct side *s)
{
	struct raw raw;
	int rc = raw_open(&raw, s->t);

	if (rc)
		return rc;
	rc = raw_discovery(&raw, 7);
	close(raw.fd);
	return rc;
}

static const int gone_errors[] = { ENODEV, ENOENT, EIO, EBUSY, ENXIO, 0 };
static const int remove_errors[] = { ENODEV, ENOENT, 0 };

/* What is left after a race: a TDI that can be removed, and is as good as new */
#define test_as_new(m, t)                                                     \
	do {                                                                  \
		bus_rescan();                                                 \
		ASSERT_EQ(0, tdi_write(t, "remove", "1"));                    \
		ASSERT_EQ(0, bus_rescan());                                   \
		ASSERT_EQ(0, tdi_reset(m, t));                                \
		test_bind(t);                                                 \
		test_discovery(t);                                            \
	} while (0)

TEST_F(doe, exchange_remove)
{
	struct side sides[] = {
		{ .step = step_exchange, .allowed = gone_errors,
		  .least = RACE_LEAST },
		{ .step = step_stay_remove, .allowed = remove_errors,
		  .least = RACE_LEAST },
	};

	tdi_close(self->t);
	set_sides(sides, &self->m, self->t);
	test_race(sides);
	test_as_new(&self->m, self->t);
}

/* The PCI core's own discovery meets somebody who is using the mailbox */
TEST_F(doe, raw_exchange_rescan)
{
	struct side sides[] = {
		{ .step = step_raw_exchange, .allowed = gone_errors,
		  .least = RACE_LEAST },
		{ .step = step_remove_rescan, .allowed = remove_errors,
		  .least = RACE_LEAST },
	};

	tdi_close(self->t);
	set_sides(sides, &self->m, self->t);
	test_race(sides);
	test_as_new(&self->m, self->t);
}

TEST_HARNESS_MAIN
