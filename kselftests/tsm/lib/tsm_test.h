/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the programs about TDIs have in common: the machine and its TDIs, the
 * sysfs files of PCI/TSM, mappings and DMA by /dev/tdi_test-<BDF>, and the
 * security processor, which says what really happened.
 *
 * Plain calls return 0 or -errno, those with a test_ in front are macros that
 * assert. Every refusal is asserted twice: by its errno, and by what the
 * platform says.
 */
#ifndef TSM_TEST_H
#define TSM_TEST_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/tdi_test.h>

#include "text.h"

#define BDF_LEN 16
#define MAX_TDIS 4
#define TEXT_LEN 128
#define PAGE 4096ULL
#define ALL_ONES (~0ULL)
#define MAPPING_ERROR (-1LL) /* DMA_MAPPING_ERROR */

/* TDISP states as the platform numbers them */
enum tdi_state { UNLOCKED, LOCKED, RUN, ERROR };

enum model { MODEL_A, MODEL_B, MODEL_N };

/* Reasons of the platform */
enum reason {
	NONE,
	BUS_MASTER_OFF,
	TDI_STATE,
	DMA_DISABLED,
	T0_LOCKED,
	PRIVATE_PAGE,
	SHARED_PAGE,
	PTE_PRIVATE,
	PTE_SHARED,
	NO_TABLE,
	NOT_PRESENT,
	PERMISSION,
	TABLE_OUTSIDE,
	TABLE_MALFORMED,
	TABLE_SHARED,
	OUTSIDE_RAM,
	IOVA_WRAP,
	VTOM_STRADDLE,
	BAD_LENGTH,
	BAD_DESCRIPTOR,
	NO_MSIX,
	ABORTED,
	ANY_REASON = 255
};

/* Commands of the security processor */
enum opcode {
	CMD_LOCK = 0x10,
	CMD_EVIDENCE,
	CMD_RUN,
	CMD_UNLOCK,
	CMD_ENABLE_DMA,
	CMD_DISABLE_DMA,
	CMD_ATTACH_TABLE,
	CMD_DETACH_TABLE,
	CMD_IOTLB_INVALIDATE,
	CMD_PAGE_STATE,
	CMD_PAGE_STATE_QUERY = 0x1c,
	CMD_TDI_INFO = 0x1e,
	CMD_INJECT = 0x80,
	CMD_SET_ERROR,
	CMD_ANNOUNCE,
	CMD_CHECK,
};

/* What INJECT makes of the next such command */
enum injection {
	INJECT_CLEAR,
	INJECT_ERROR,
	INJECT_DELAY,
	INJECT_NO_ANSWER,
	INJECT_WRONG_KEY,
	INJECT_WRONG_CHAIN,
	INJECT_WRONG_NONCE,
	INJECT_WRONG_MEASUREMENT,
};

/* An answer of the security processor for INJECT_ERROR */
#define RESULT_FAILED 12

/*
 * What differs between the hardware models, and nothing else may: the same
 * tests run in all of them.
 *
 * @viommu: DMA of trusted devices is translated
 * @t0_walks: that of untrusted ones too
 * @shared_window: a trusted device can have shared mappings
 * @t0_unmapped: T=0 to an address of private memory that nobody mapped
 * @t1_stale: T=1 to what was the address of an untrusted mapping
 * @shared_attr_on_private: trusted, CC_SHARED map of a private page
 * @p2p: trusted, DMA_ATTR_MMIO map of the BAR of a TDI
 */
struct model_rules {
	const char *name;
	bool viommu;
	bool t0_walks;
	bool shared_window;
	enum reason t0_unmapped;
	enum reason t1_stale;
	enum reason shared_attr_on_private;
	enum reason p2p;
};

/* @fd: of /dev/tdi_test-<BDF>, or -1 */
struct tdi {
	char bdf[BDF_LEN];
	__u32 id;
	__u32 interface;
	int fd;
};

/*
 * @vtom: what the platform suggests, only in model N other than all ones
 * @broken: the reason that machine_open() gives is a defect, nothing that is missing
 */
struct machine {
	int control;
	int n_tdis;
	struct tdi tdi[MAX_TDIS];
	char tsm[32];
	enum model model;
	const struct model_rules *rules;
	__u64 vtom;
	unsigned int c_bit;
	bool t0_blocked_locked;
	bool bme_clear_is_error;
	bool broken;
};

/* What a test needs, beyond root and the TDI with its driver */
#define NEED_PLATFORM (1U << 0) /* the security processor answers the kernel */
#define NEED_TSM (1U << 1) /* tsm/lock, a devsec TSM, the trust attribute */
#define NEED_TWO (1U << 2) /* two TDIs */
#define NEED_VIOMMU (1U << 3)
#define NEED_ACCOUNTING (1U << 4)
#define NEED_TSM_DRIVER (1U << 5) /* the TSM can go and come back */
#define NEED_ALL (NEED_PLATFORM | NEED_TSM)

/* Can a trusted device have shared mappings on this machine? */
static inline bool has_shared_window(const struct machine *m)
{
	return m->rules->shared_window &&
	       !(m->model == MODEL_N && m->vtom == ALL_ONES);
}

/* machine.c. The reason why the test cannot run here, or NULL */
const char *machine_open(struct machine *m, unsigned int needs);
void machine_find_tsm(struct machine *m);
int tsm_back(struct machine *m);
void machine_close(struct machine *m);
int tdi_reset(struct machine *m, struct tdi *t);
int tdi_begin(struct machine *m, struct tdi *t);
int tdi_to(struct machine *m, struct tdi *t, enum tdi_state state,
	   const char *trust);
const char *state_name(enum tdi_state state);

/* platform.c: not by way of the code under test */
int platform_command(struct machine *m, struct tdi_test_command *cmd);
int platform_simple(struct machine *m, struct tdi *t, enum opcode opcode);
int platform_inject(struct machine *m, struct tdi *t, enum opcode opcode,
		    enum injection kind, __u64 value, __u64 times);
int platform_announce(struct machine *m, struct tdi *t, enum reason reason,
		      unsigned int times);
int platform_check(struct machine *m, __u64 *unannounced, __u64 *missing);
int platform_arm(struct machine *m, struct tdi *t);
int platform_untouched(struct machine *m, struct tdi *t);
int platform_state(struct machine *m, struct tdi *t);
int platform_dma_enabled(struct machine *m, struct tdi *t);
__u64 platform_generation(struct machine *m, struct tdi *t);
int platform_is_shared(struct machine *m, __u64 gpa);
__s64 platform_shared_pages(struct machine *m);
ssize_t platform_evidence(struct machine *m, struct tdi *t, int object,
			  void *buf, size_t size);

int policy_set(struct machine *m, struct tdi *t, bool other,
	       const void *reference, size_t reference_len);

/* sysfs.c */
int tdi_write(const struct tdi *t, const char *file, const char *text);
int tdi_read(const struct tdi *t, const char *file, char *buf, size_t size);
bool tdi_has(const struct tdi *t, const char *file);
bool tdi_is_bound(const struct tdi *t);
int tdi_bind(const struct tdi *t);
int tdi_unbind(struct tdi *t);
int tdi_lock(struct machine *m, const struct tdi *t);
int tdi_accept(const struct tdi *t);
int tdi_unlock(struct machine *m, const struct tdi *t);
int tdi_trust(const struct tdi *t, const char *level);
int tdi_flush_at_once(const struct tdi *t);
int tdi_remove(struct tdi *t);
int tdi_share_group(struct tdi *tdis, int n, bool share);
int bus_rescan(void);
int bus_autoprobe(bool on);
bool tsm_has_driver(void);
bool tsm_can_go(void);
int tsm_come(void);
int tsm_go(void);
long tdi_mismatches(const struct tdi *t);
long kernel_splats(void);

/* dma.c */
int tdi_open(struct tdi *t);
void tdi_close(struct tdi *t);
int tdi_info(const struct tdi *t, struct tdi_test_info *info);
int tdi_map(const struct tdi *t, __u32 entry, __u32 flags, __u64 size,
	    struct tdi_test_map *map);
int tdi_unmap(const struct tdi *t, __u32 slot);
int tdi_unmap_attrs(const struct tdi *t, __u32 slot, __u32 flags);
int tdi_unmap_addr(const struct tdi *t, __u64 addr, __u64 size);
int tdi_resolve(const struct tdi *t, __u32 slot, __u64 offset,
		struct tdi_test_resolve *at);
int tdi_cpu_write(const struct tdi *t, __u32 slot, __u64 offset,
		  const void *data, __u64 length);
int tdi_cpu_read(const struct tdi *t, __u32 slot, __u64 offset, void *data,
		 __u64 length);
int tdi_dma(const struct tdi *t, struct tdi_test_dma *dma);
int tdi_dma_at(const struct tdi *t, __u32 op, __u32 how, __u64 iova,
	       __u64 length, struct tdi_test_dma *dma);
int tdi_roundtrip(const struct tdi *t, const struct tdi_test_map *map,
		  __u64 size, __u32 how, char *why, size_t why_size);
int tdi_buffer_read(const struct tdi *t, void *data, size_t length);
int tdi_doe(const struct tdi *t, __u32 type, const void *request, __u32 size,
	    struct tdi_test_doe *answer);
int tdi_reg(const struct tdi *t, __u32 offset, bool write, __u32 *value);
__u32 crc32_of(const void *data, size_t length);

int probe_mode(struct machine *m, const struct tdi *t, __u32 mode);
int probe_result(struct machine *m, const struct tdi *t,
		 struct tdi_test_probe *result);

const char *entry_name(__u32 entry);

/*
 * In tests. @m and @t: struct machine and struct tdi
 */

#define OPEN_MACHINE_OR_SKIP(m, needs)                                        \
	do {                                                                  \
		const char *_why = machine_open(m, needs);                    \
		ASSERT_FALSE((m)->broken)                                     \
		{                                                             \
			TH_LOG("%s", _why);                                   \
		}                                                             \
		if (_why)                                                     \
			SKIP(return, "%s", _why);                             \
	} while (0)

#define test_to(m, t, state, trust)                                           \
	ASSERT_EQ(0, tdi_to(m, t, state, trust))                              \
	{                                                                     \
		TH_LOG("%s: not to %s with trust %s", (t)->bdf,               \
		       state_name(state), trust);                             \
	}

/* Bound, and open */
#define test_bind(t)                                                          \
	do {                                                                  \
		ASSERT_EQ(0, tdi_bind(t));                                    \
		ASSERT_EQ(0, tdi_open(t));                                    \
	} while (0)
#define test_unbind(t) ASSERT_EQ(0, tdi_unbind(t))

#define test_state(expected, m, t) EXPECT_EQ(expected, platform_state(m, t))
#define test_dma_enabled(expected, m, t)                                      \
	EXPECT_EQ(expected, platform_dma_enabled(m, t))
#define test_private(expected, t)                                             \
	({                                                                    \
		struct tdi_test_info _info;                                   \
		ASSERT_EQ(0, tdi_info(t, &_info));                            \
		EXPECT_EQ(expected, !!(_info.flags & TDI_TEST_INFO_PRIVATE)); \
	})
#define test_live(expected, t)                                                \
	({                                                                    \
		struct tdi_test_info _info;                                   \
		ASSERT_EQ(0, tdi_info(t, &_info));                            \
		EXPECT_EQ(expected, _info.live);                              \
	})

/* Every unmap was that of a mapping */
#define test_no_mismatch(t) EXPECT_EQ(0, tdi_mismatches(t))

/* Nothing happened: same state, same lock, no private DMA */
#define test_untouched(m, t, state, generation)                               \
	({                                                                    \
		test_state(state, m, t);                                      \
		EXPECT_EQ(generation, platform_generation(m, t));             \
		test_dma_enabled(0, m, t);                                    \
	})

/* Refused with @error, and nobody asked the security processor for anything */
#define test_err_quiet(error, m, t, call)                                     \
	do {                                                                  \
		ASSERT_EQ(0, platform_arm(m, t));                             \
		EXPECT_EQ(error, call);                                       \
		EXPECT_EQ(0, platform_untouched(m, t));                       \
	} while (0)

/* While the driver is bound: no attestation, with bus mastering and without */
#define test_err_attest(m, t, generation)                                     \
	do {                                                                  \
		EXPECT_EQ(-EBUSY, ioctl((t)->fd, TDI_TEST_ATTEST) ? -errno : 0); \
		ASSERT_EQ(0, ioctl((t)->fd, TDI_TEST_SET_MASTER,              \
				   TDI_TEST_MASTER_CLEAR));                   \
		EXPECT_EQ(-EBUSY, ioctl((t)->fd, TDI_TEST_ATTEST) ? -errno : 0); \
		test_untouched(m, t, UNLOCKED, generation);                   \
	} while (0)

/* A mapping that has to succeed */
#define test_map(t, entry, flags, size, map)                                  \
	do {                                                                  \
		ASSERT_EQ(0, tdi_map(t, entry, flags, size, map));            \
		ASSERT_NE(TDI_TEST_NO_SLOT, (map)->slot)                      \
		{                                                             \
			TH_LOG("map by %s, flags %#x: %lld",                  \
			       entry_name(entry), flags,                      \
			       (long long)(map)->ret);                        \
		}                                                             \
	} while (0)

/* One that has to fail, with no page left shared */
#define test_err_map(m, t, entry, flags, size)                                \
	({                                                                    \
		__s64 _shared = platform_shared_pages(m);                     \
		struct tdi_test_map _map;                                     \
		ASSERT_EQ(0, tdi_map(t, entry, flags, size, &_map));          \
		EXPECT_EQ(TDI_TEST_NO_SLOT, _map.slot)                        \
		{                                                             \
			TH_LOG("map by %s, flags %#x: not refused",           \
			       entry_name(entry), flags);                     \
			tdi_unmap(t, _map.slot);                              \
		}                                                             \
		EXPECT_EQ(_shared, platform_shared_pages(m));                 \
	})
#define test_unmap(t, map) ASSERT_EQ(0, tdi_unmap(t, (map)->slot))

/* The device reads what the CPU wrote, and the CPU what the device wrote */
#define test_roundtrip(t, map, size, how)                                     \
	({                                                                    \
		char _why[TEXT_LEN] = "";                                     \
		EXPECT_EQ(0, tdi_roundtrip(t, map, size, how, _why,           \
					   sizeof(_why)))                     \
		{                                                             \
			TH_LOG("%s", _why);                                   \
		}                                                             \
	})

/*
 * DMA that the platform has to refuse for @expected, with nothing moved. The
 * fault is announced, so that it does not count as a broken rule.
 */
#define test_err_dma(expected, m, t, op, how, addr, len)                      \
	({                                                                    \
		struct tdi_test_dma _dma;                                     \
		ASSERT_EQ(0, platform_announce(m, t, expected, 1));           \
		ASSERT_EQ(0, tdi_dma_at(t, op, how, addr, len, &_dma));       \
		EXPECT_EQ(3, _dma.status);                                    \
		EXPECT_EQ(expected, _dma.reason);                             \
		EXPECT_EQ(0, _dma.done);                                      \
	})

/* No fault but those that were announced, and all of them */
#define test_check(m)                                                         \
	({                                                                    \
		__u64 _unannounced = 0, _missing = 0;                         \
		EXPECT_EQ(0, platform_check(m, &_unannounced, &_missing));    \
		EXPECT_EQ(0, _unannounced);                                   \
		EXPECT_EQ(0, _missing);                                       \
	})

/* tdi[0] as each test finds it: unlocked, not bound, trust level auto */
#define MACHINE_SETUP(needs)                                                  \
	do {                                                                  \
		OPEN_MACHINE_OR_SKIP(&self->m, needs);                        \
		self->t = &self->m.tdi[0];                                    \
		ASSERT_EQ(0, tdi_begin(&self->m, self->t));                   \
	} while (0)

/* The platform's word on the test */
#define MACHINE_TEARDOWN(name)                                                \
	FIXTURE_TEARDOWN(name)                                                \
	{                                                                     \
		if (!self->t)                                                 \
			return;                                               \
		test_check(&self->m);                                         \
		EXPECT_EQ(0, tdi_reset(&self->m, self->t));                   \
		machine_close(&self->m);                                      \
	}

/* The TSM may go, and drivers are bound by hand, also to a TDI that was away */
#define GONE_SETUP()                                                          \
	do {                                                                  \
		MACHINE_SETUP(NEED_ALL | NEED_TSM_DRIVER | NEED_ACCOUNTING);  \
		ASSERT_EQ(0, bus_autoprobe(false));                           \
	} while (0)

#define GONE_TEARDOWN(name)                                                   \
	FIXTURE_TEARDOWN(name)                                                \
	{                                                                     \
		if (!self->t)                                                 \
			return;                                               \
		EXPECT_EQ(0, bus_autoprobe(true));                            \
		EXPECT_EQ(0, tsm_back(&self->m));                             \
		test_check(&self->m);                                         \
		EXPECT_EQ(0, tdi_reset(&self->m, self->t));                   \
		machine_close(&self->m);                                      \
	}

/* The fixture of nearly all programs */
#define MACHINE_FIXTURE(name, needs)                                          \
	FIXTURE(name)                                                         \
	{                                                                     \
		struct machine m;                                             \
		struct tdi *t;                                                \
	};                                                                    \
	FIXTURE_SETUP(name)                                                   \
	{                                                                     \
		MACHINE_SETUP(needs);                                         \
	}                                                                     \
	MACHINE_TEARDOWN(name)

/*
 * The same, but bound: with UNLOCKED and "auto" to an untrusted TDI, with RUN and
 * "tcb" to one with private DMA.
 */
#define BOUND_FIXTURE(name, needs, state, trust)                              \
	FIXTURE(name)                                                         \
	{                                                                     \
		struct machine m;                                             \
		struct tdi *t;                                                \
	};                                                                    \
	FIXTURE_SETUP(name)                                                   \
	{                                                                     \
		MACHINE_SETUP(needs);                                         \
		test_to(&self->m, self->t, state, trust);                     \
		test_bind(self->t);                                           \
		test_private(state == RUN && !strcmp(trust, "tcb"), self->t); \
	}                                                                     \
	MACHINE_TEARDOWN(name)

/* The CPU's memory at the start of a mapping, and what the device gets at */
#define test_target(m, t, map, cpu_shared, device_shared, bounced)            \
	({                                                                    \
		struct tdi_test_resolve _at;                                  \
		ASSERT_EQ(0, tdi_resolve(t, (map)->slot, 0, &_at));           \
		EXPECT_EQ(cpu_shared, platform_is_shared(m, _at.phys));       \
		EXPECT_EQ(device_shared, platform_is_shared(m, _at.target));  \
		EXPECT_EQ(bounced, _at.phys != _at.target);                   \
	})

/* A bound and open TDI has DMA, that of one which is not trusted */
#define test_untrusted_works(m, t)                                            \
	do {                                                                  \
		struct tdi_test_map _map;                                     \
		test_private(0, t);                                           \
		test_map(t, TDI_TEST_PHYS, 0, 2 * PAGE, &_map);               \
		test_target(m, t, &_map, 0, 1, true);                         \
		test_roundtrip(t, &_map, 2 * PAGE, TDI_TEST_T_DRIVER);        \
		test_unmap(t, &_map);                                         \
	} while (0)

/* Who has a vIOMMU has groups */
#define GROUP_OR_SKIP(m, t)                                                   \
	do {                                                                  \
		if (!(m)->rules->viommu)                                      \
			SKIP(return, "no vIOMMU in model %s", (m)->rules->name); \
		ASSERT_TRUE(tdi_has(t, "iommu_group/type"));                  \
	} while (0)

#define SHARED_WINDOW_OR_SKIP(m)                                              \
	do {                                                                  \
		if (!has_shared_window(m))                                    \
			SKIP(return, "trusted devices reach no shared memory in model %s", \
			     (m)->rules->name);                               \
	} while (0)

#endif /* TSM_TEST_H */
