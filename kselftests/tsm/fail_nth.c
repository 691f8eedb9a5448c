// SPDX-License-Identifier: GPL-2.0-only
/*
 * 44: the nth allocation of lock, accept, bind and unlock fails, for each n until
 * none does. A step that failed has changed nothing and left nothing, and works
 * the next time.
 */
#include <errno.h>
#include <fcntl.h>

#include "../kselftest_harness.h"
#include "tsm_test.h"

#define FAILSLAB "/sys/kernel/debug/failslab/"

/* Most allocations that a step could fail at */
#define FAIL_NTH_MAX 1000
#define ATTEST_STRIDE 13
#define ATTEST_TIMEOUT_S 90

/*
 * @fd: /proc/thread-self/fail-nth. @irq: interrupts can be asked for. @wait,
 * @verbose: settings as they were
 */
FIXTURE(allocations)
{
	struct machine m;
	struct tdi *t;
	int fd;
	bool irq;
	char wait[16], verbose[16];
};

/* Where the code of @name begins and ends. Not found: false */
static bool find_code(const char *name, unsigned long *start, unsigned long *end)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	unsigned long at;
	char line[256], symbol[128];

	*start = 0;
	*end = ~0UL;
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%lx %*c %127s", &at, symbol) == 2 &&
		    !strcmp(symbol, name))
			*start = at;
	if (file && *start) {
		rewind(file);
		while (fgets(line, sizeof(line), file))
			if (sscanf(line, "%lx", &at) == 1 && at > *start &&
			    at < *end)
				*end = at;
	}
	if (file)
		fclose(file);
	return *start && *end != ~0UL;
}

/*
 * Freeing an interrupt warns when a file of /proc/irq had got no memory, which is
 * nothing that a driver or PCI/TSM could prevent: do not have these fail.
 */
static bool spare_irq_proc(void)
{
	unsigned long start, end;
	char text[32];

	if (!find_code("register_irq_proc", &start, &end))
		return false;
	snprintf(text, sizeof(text), "%#lx", end);
	if (write_text(FAILSLAB "reject-end", text))
		return false;
	snprintf(text, sizeof(text), "%#lx", start);
	return !write_text(FAILSLAB "reject-start", text);
}

FIXTURE_SETUP(allocations)
{
	self->fd = -1;
	MACHINE_SETUP(NEED_ALL);
	read_text(FAILSLAB "ignore-gfp-wait", self->wait, sizeof(self->wait));
	read_text(FAILSLAB "verbose", self->verbose, sizeof(self->verbose));
	/* Also what may sleep, and without a report for each */
	write_text(FAILSLAB "ignore-gfp-wait", "N");
	write_text(FAILSLAB "verbose", "0");
	self->irq = spare_irq_proc();
	self->fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (self->fd < 0 && errno == ENOENT)
		SKIP(return, "no fail-nth: kernel without CONFIG_FAULT_INJECTION");
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(allocations)
{
	if (!self->t)
		return;
	if (self->fd >= 0)
		close(self->fd);
	write_text(FAILSLAB "reject-start", "0");
	write_text(FAILSLAB "reject-end", "0");
	write_text(FAILSLAB "ignore-gfp-wait", self->wait);
	write_text(FAILSLAB "verbose", self->verbose);
	test_check(&self->m);
	EXPECT_EQ(0, tdi_reset(&self->m, self->t));
	machine_close(&self->m);
}

static int set_fail_nth(int fd, unsigned int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", n);
	return pwrite(fd, text, strlen(text), 0) < 0 ? -errno : 0;
}

/* Has the nth allocation been reached? */
static bool has_failed(int fd)
{
	char text[16] = "";

	return pread(fd, text, sizeof(text) - 1, 0) > 0 && !atoi(text);
}

static int step_lock(struct machine *m, struct tdi *t)
{
	return tdi_lock(m, t);
}

static int step_accept(struct machine *m, struct tdi *t)
{
	return tdi_accept(t);
}

static int step_bind(struct machine *m, struct tdi *t)
{
	return tdi_bind(t);
}

static int step_unlock(struct machine *m, struct tdi *t)
{
	return tdi_unlock(m, t);
}

/*
 * @run fails and succeeds between the states @before and @after. @private: with
 * private DMA when it succeeded. @stride: 0, or every how many allocations one
 * fails, where there are too many of them.
 */
struct step {
	int (*run)(struct machine *m, struct tdi *t);
	enum tdi_state before, after;
	__u32 mode;
	bool private;
	unsigned int stride;
};

/* For each n. @refused: how many failed */
#define test_fail_nth(s, refused)                                             \
	do {                                                                  \
		const struct step *_s = s;                                    \
		__s64 _shared = -1;                                           \
		unsigned int _n = 0;                                          \
		bool _failed = true;                                          \
		int _rc;                                                      \
		*(refused) = 0;                                               \
		for (; _failed && _n < FAIL_NTH_MAX;                          \
		     _n += _n && _s->stride ? _s->stride : 1) {               \
			ASSERT_EQ(0, tdi_reset(&self->m, self->t));           \
			/* The first time nothing fails, and pools grow */    \
			if (_n == 1)                                          \
				_shared = platform_shared_pages(&self->m);    \
			test_to(&self->m, self->t, _s->before, "tcb");        \
			ASSERT_EQ(0, probe_mode(&self->m, self->t, _s->mode)); \
			ASSERT_EQ(0, set_fail_nth(self->fd, _n));             \
			_rc = _s->run(&self->m, self->t);                     \
			_failed = !_n || has_failed(self->fd);                \
			set_fail_nth(self->fd, 0);                            \
			*(refused) += _rc != 0;                               \
			test_outcome(_s, _rc);                                \
		}                                                             \
		EXPECT_GT(FAIL_NTH_MAX, _n);                                  \
		ASSERT_EQ(0, tdi_reset(&self->m, self->t));                   \
		EXPECT_EQ(_shared, platform_shared_pages(&self->m));          \
		TH_LOG("about %u allocations, %u failures", _n - 1, *(refused)); \
	} while (0)

/*
 * It may have got along without the memory. Or nothing changed, but that a failed
 * probe ends with bus mastering off.
 */
#define test_outcome(s, rc)                                                   \
	do {                                                                  \
		if (!(rc) || (s)->run != step_bind || (s)->before != RUN ||   \
		    !self->m.bme_clear_is_error) {                            \
			test_state((int)((rc) ? (s)->before : (s)->after),    \
				   &self->m, self->t);                        \
		}                                                             \
		test_dma_enabled(!(rc) && (s)->private, &self->m, self->t);   \
		if ((s)->run == step_bind) {                                  \
			EXPECT_EQ(!(rc), tdi_is_bound(self->t));              \
		}                                                             \
	} while (0)

TEST_F(allocations, lock)
{
	static const struct step step = { step_lock, UNLOCKED, LOCKED };
	unsigned int refused;

	test_fail_nth(&step, &refused);
	EXPECT_LT(0, refused);
}

TEST_F(allocations, accept)
{
	static const struct step step = { step_accept, LOCKED, RUN };
	unsigned int refused;

	test_fail_nth(&step, &refused);
	EXPECT_LT(0, refused);
}

TEST_F(allocations, unlock)
{
	static const struct step step = { step_unlock, RUN, UNLOCKED };
	unsigned int refused;

	test_fail_nth(&step, &refused);
	EXPECT_LT(0, refused);
}

TEST_F(allocations, bind)
{
	static const struct step step = {
		step_bind, RUN, RUN, TDI_TEST_PROBE_NO_IRQ, true
	};
	struct tdi_test_map map;
	unsigned int refused;

	test_fail_nth(&step, &refused);
	EXPECT_LT(0, refused);

	/* As good as ever */
	test_to(&self->m, self->t, RUN, "tcb");
	test_bind(self->t);
	test_private(1, self->t);
	test_live(0, self->t);
	test_map(self->t, TDI_TEST_PHYS, 0, 2 * PAGE, &map);
	test_roundtrip(self->t, &map, 2 * PAGE, TDI_TEST_T_1);
	test_unmap(self->t, &map);
}

/* The same with what the driver does for its interrupts */
TEST_F(allocations, bind_irq)
{
	static const struct step step = { step_bind, RUN, RUN, 0, true };
	struct tdi_test_info info;
	unsigned int refused;

	if (!self->irq)
		SKIP(return, "no stack trace filter: kernel without CONFIG_FAULT_INJECTION_STACKTRACE_FILTER");
	test_fail_nth(&step, &refused);
	EXPECT_LT(0, refused);

	test_bind(self->t);
	ASSERT_EQ(0, tdi_info(self->t, &info));
	EXPECT_LT(0, info.vectors);
}

/*
 * Attestation in probe(): untrusted after a failure, as if it had not been tried.
 * Signatures are verified each time, which takes long, so not each n.
 */
TEST_F_TIMEOUT(allocations, attest, ATTEST_TIMEOUT_S)
{
	static const struct step step = {
		step_bind, UNLOCKED, RUN,
		TDI_TEST_PROBE_NO_IRQ | TDI_TEST_PROBE_ATTEST, true,
		ATTEST_STRIDE
	};
	unsigned int refused;

	ASSERT_EQ(0, policy_set(&self->m, self->t, false, NULL, 0));
	test_fail_nth(&step, &refused);
	EXPECT_LT(0, refused);
}

TEST_HARNESS_MAIN
