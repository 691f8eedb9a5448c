// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who may change the security state and the trust level of a device, ask for its
 * evidence and find it good, and change the type of its IOMMU group.
 */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "../kselftest_harness.h"
#include "evidence.h"

MACHINE_FIXTURE(uapi, NEED_ALL)

/* Run @call as nobody: 0 or -errno of it */
static int as_nobody(struct machine *m, struct tdi *t,
		     int (*call)(struct machine *m, struct tdi *t))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
			_exit(127);
		_exit(-call(m, t));
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -ECHILD;
	return -WEXITSTATUS(status);
}

static int call_lock(struct machine *m, struct tdi *t)
{
	return tdi_lock(m, t);
}

static int call_accept(struct machine *m, struct tdi *t)
{
	return tdi_accept(t);
}

static int call_unlock(struct machine *m, struct tdi *t)
{
	return tdi_unlock(m, t);
}

static int call_trust(struct machine *m, struct tdi *t)
{
	return tdi_trust(t, "tcb");
}

static int call_open(struct machine *m, struct tdi *t)
{
	return tdi_open(t);
}

/* 13, the first half */
TEST_F(uapi, perms)
{
	__u64 generation = platform_generation(&self->m, self->t);
	char level[16];

	test_err_quiet(-EACCES, &self->m, self->t,
		       as_nobody(&self->m, self->t, call_lock));
	test_untouched(&self->m, self->t, UNLOCKED, generation);
	EXPECT_EQ(-EACCES, as_nobody(&self->m, self->t, call_trust));
	ASSERT_EQ(0, tdi_read(self->t, "trust", level, sizeof(level)));
	EXPECT_STREQ("auto", level);

	test_to(&self->m, self->t, LOCKED, "auto");
	generation = platform_generation(&self->m, self->t);
	test_err_quiet(-EACCES, &self->m, self->t,
		       as_nobody(&self->m, self->t, call_accept));
	test_err_quiet(-EACCES, &self->m, self->t,
		       as_nobody(&self->m, self->t, call_unlock));
	test_untouched(&self->m, self->t, LOCKED, generation);

	test_bind(self->t);
	tdi_close(self->t);
	EXPECT_EQ(-EACCES, as_nobody(&self->m, self->t, call_open));
}

static int call_evidence(struct machine *m, struct tdi *t)
{
	struct evidence ev;
	int rc = evidence_open(&ev);

	if (rc)
		return rc;
	rc = evidence_get(&ev, t, "x", 1);
	evidence_close(&ev);
	return rc;
}

static int call_validate(struct machine *m, struct tdi *t)
{
	struct evidence ev;
	int rc = evidence_open(&ev);

	if (rc)
		return rc;
	/* Of no lock: ESTALE for who may, and then none could be accepted */
	rc = evidence_validate(&ev, t, 0);
	evidence_close(&ev);
	return rc;
}

/* 13, over netlink: no evidence, and nobody is made to wait for a verdict */
TEST_F(uapi, perms_evidence)
{
	int rc;

	test_to(&self->m, self->t, LOCKED, "auto");
	rc = call_evidence(&self->m, self->t);
	if (rc == -ENOENT)
		SKIP(return, "no netlink family " DEVICE_EVIDENCE_FAMILY_NAME);
	EXPECT_EQ(0, rc);
	test_err_quiet(-EPERM, &self->m, self->t,
		       as_nobody(&self->m, self->t, call_evidence));
	test_err_quiet(-EPERM, &self->m, self->t,
		       as_nobody(&self->m, self->t, call_validate));
	EXPECT_EQ(0, tdi_accept(self->t));
	test_state(RUN, &self->m, self->t);
}

static int call_group_type(struct machine *m, struct tdi *t)
{
	return tdi_write(t, "iommu_group/type", "DMA");
}

static int drop_rawio_and_call(struct machine *m, struct tdi *t)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2] = {};

	if (syscall(SYS_capget, &header, data))
		return -errno;
	data[0].effective &= ~(1U << CAP_SYS_RAWIO);
	if (syscall(SYS_capset, &header, data))
		return -errno;
	return call_group_type(m, t);
}

/* 13, the second half: the type of a group needs CAP_SYS_RAWIO */
TEST_F(uapi, perms_group_type)
{
	char before[32], after[32];
	int status;
	pid_t pid;

	GROUP_OR_SKIP(&self->m, self->t);
	ASSERT_EQ(0, tdi_read(self->t, "iommu_group/type", before,
			      sizeof(before)));
	EXPECT_EQ(-EACCES, as_nobody(&self->m, self->t, call_group_type));
	pid = fork();
	if (!pid)
		_exit(-drop_rawio_and_call(&self->m, self->t));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(EACCES, WEXITSTATUS(status));
	ASSERT_EQ(0, tdi_read(self->t, "iommu_group/type", after,
			      sizeof(after)));
	EXPECT_STREQ(before, after);
}

TEST_HARNESS_MAIN
