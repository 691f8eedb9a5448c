// SPDX-License-Identifier: GPL-2.0-only
/*
 * The security processor of the emulated platform, by /dev/tdi_test: what it
 * knows, and what it is to do in a test.
 */
#include <sys/ioctl.h>

#include "tsm_test.h"

#define REG_ANNOUNCE 0x200
#define REG_PENDING 0x204
#define REG_UNANNOUNCED 0x208
#define REG_CHECK 0x20c

/* 0 or -errno, that of the command if it was carried out */
int platform_command(struct machine *m, struct tdi_test_command *cmd)
{
	if (ioctl(m->control, TDI_TEST_COMMAND, cmd))
		return -errno;
	return cmd->ret;
}

int platform_simple(struct machine *m, struct tdi *t, enum opcode opcode)
{
	struct tdi_test_command cmd = { .tdi = t->interface, .opcode = opcode };

	return platform_command(m, &cmd);
}

/* What happens to the next @times commands with this opcode */
int platform_inject(struct machine *m, struct tdi *t, enum opcode opcode,
		    enum injection kind, __u64 value, __u64 times)
{
	struct tdi_test_command cmd = {
		.tdi = t->interface,
		.opcode = CMD_INJECT,
		.arg = { opcode, kind, value, times },
	};

	return platform_command(m, &cmd);
}

static const enum opcode changing[] = { CMD_LOCK, CMD_RUN, CMD_UNLOCK,
					CMD_ENABLE_DMA };
#define NR_CHANGING (sizeof(changing) / sizeof(changing[0]))

/* Whoever next asks for a change of the TDI is told that it failed */
int platform_arm(struct machine *m, struct tdi *t)
{
	unsigned int i;
	int rc = 0;

	for (i = 0; !rc && i < NR_CHANGING; i++)
		rc = platform_inject(m, t, changing[i], INJECT_ERROR,
				     RESULT_FAILED, 1);
	return rc;
}

/* 0 if nobody has asked since platform_arm(), or what was asked for */
int platform_untouched(struct machine *m, struct tdi *t)
{
	unsigned int i;
	int asked = 0;

	for (i = 0; i < NR_CHANGING; i++)
		if (platform_simple(m, t, changing[i]) != -EIO)
			asked = changing[i];
	return asked;
}

/* By a register of the TDI if it is open: that works without a mailbox, too */
int platform_announce(struct machine *m, struct tdi *t, enum reason reason,
		      unsigned int times)
{
	struct tdi_test_command cmd = {
		.tdi = t->interface,
		.opcode = CMD_ANNOUNCE,
		.arg = { reason, times },
	};
	__u32 value = reason | times << 8;

	if (t->fd >= 0)
		return tdi_reg(t, REG_ANNOUNCE, true, &value);
	return platform_command(m, &cmd);
}

/* The same by the registers of an open TDI */
static int tdi_check(struct tdi *t, __u64 *unannounced, __u64 *missing)
{
	__u32 faults = 0, pending = 0, label = 0;
	int rc;

	rc = tdi_reg(t, REG_UNANNOUNCED, false, &faults) ?:
	     tdi_reg(t, REG_PENDING, false, &pending) ?:
	     tdi_reg(t, REG_CHECK, true, &label);
	*unannounced = faults;
	*missing = pending;
	return rc;
}

/* Since the last call */
int platform_check(struct machine *m, __u64 *unannounced, __u64 *missing)
{
	struct tdi_test_command cmd = { .opcode = CMD_CHECK };
	int rc = platform_command(m, &cmd);

	if (rc == -ENODEV && m->tdi[0].fd >= 0)
		return tdi_check(&m->tdi[0], unannounced, missing);
	*unannounced = cmd.out[0];
	*missing = cmd.out[1];
	return rc;
}

static int tdi_platform_info(struct machine *m, struct tdi *t,
			     struct tdi_test_command *cmd)
{
	*cmd = (struct tdi_test_command){
		.tdi = t->interface,
		.opcode = CMD_TDI_INFO,
	};
	return platform_command(m, cmd);
}

int platform_state(struct machine *m, struct tdi *t)
{
	struct tdi_test_command cmd;
	int rc = tdi_platform_info(m, t, &cmd);

	return rc ?: (int)(cmd.out[0] & 0xff);
}

int platform_dma_enabled(struct machine *m, struct tdi *t)
{
	struct tdi_test_command cmd;
	int rc = tdi_platform_info(m, t, &cmd);

	return rc ?: !!(cmd.out[0] & 1 << 10);
}

/* Changes with each lock; 0 if there is no platform */
__u64 platform_generation(struct machine *m, struct tdi *t)
{
	struct tdi_test_command cmd;

	return tdi_platform_info(m, t, &cmd) ? 0 : cmd.out[1];
}

int platform_is_shared(struct machine *m, __u64 gpa)
{
	struct tdi_test_command cmd = {
		.opcode = CMD_PAGE_STATE_QUERY,
		.arg = { gpa },
	};

	return platform_command(m, &cmd) ?: (int)cmd.out[0];
}

__s64 platform_shared_pages(struct machine *m)
{
	struct tdi_test_command cmd = { .opcode = CMD_PAGE_STATE_QUERY };
	int rc = platform_command(m, &cmd);

	return rc ?: (__s64)cmd.out[1];
}

/* The size of the object, or -errno. @object: 0 chain, 1 measurements, 2 report */
ssize_t platform_evidence(struct machine *m, struct tdi *t, int object,
			  void *buf, size_t size)
{
	struct tdi_test_command cmd = {
		.tdi = t->interface,
		.opcode = CMD_EVIDENCE,
		.arg = { object },
		.data_len = size,
		.data = (uintptr_t)buf,
	};

	return platform_command(m, &cmd) ?: (ssize_t)cmd.out[0];
}

/*
 * The driver trusts the root of this device's own chain from now on, which is
 * good enough for a test; with @other nothing that the device can show is good.
 */
int policy_set(struct machine *m, struct tdi *t, bool other,
	       const void *reference, size_t reference_len)
{
	static unsigned char chain[65536];
	struct tdi_test_policy policy = {
		.reference = (uintptr_t)reference,
		.reference_len = reference_len,
	};
	ssize_t size = platform_evidence(m, t, 0, chain, sizeof(chain));

	if (size < 0)
		return size;
	/* The first certificate: a DER sequence with a length of two bytes */
	if (size < 4 || chain[0] != 0x30 || chain[1] != 0x82)
		return -EBADMSG;
	policy.root = (uintptr_t)chain;
	policy.root_len = other ? 0 : 4 + (chain[2] << 8 | chain[3]);
	if (policy.root_len > size)
		return -EBADMSG;
	return ioctl(m->control, TDI_TEST_SET_POLICY, &policy) ? -errno : 0;
}
