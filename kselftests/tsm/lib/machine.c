// SPDX-License-Identifier: GPL-2.0-only
/* What this machine has, and how its TDIs get into a known state. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "tsm_test.h"

#define DEVICES "/sys/bus/pci/devices"
#define CLASS "/sys/class/tsm"

/* Of the security processor's BAR0 */
#define REG_FEATURES 0x008
#define FEATURE_T0_BLOCKED (1U << 9)
#define FEATURE_BME_ERROR (1U << 10)

static const struct model_rules rules[] = {
	[MODEL_A] = {
		.name = "A",
		.viommu = true,
		.t0_unmapped = PRIVATE_PAGE,
		.t1_stale = NOT_PRESENT,
		.shared_attr_on_private = NONE,
		.p2p = PTE_SHARED,
	},
	[MODEL_B] = {
		.name = "B",
		.viommu = true,
		.t0_walks = true,
		.shared_window = true,
		.t0_unmapped = NOT_PRESENT,
		.t1_stale = NOT_PRESENT,
		.shared_attr_on_private = PRIVATE_PAGE,
		.p2p = PRIVATE_PAGE,
	},
	[MODEL_N] = {
		.name = "N",
		.shared_window = true,
		.t0_unmapped = PRIVATE_PAGE,
		.t1_stale = SHARED_PAGE,
		.shared_attr_on_private = PRIVATE_PAGE,
		.p2p = OUTSIDE_RAM,
	},
};

const char *state_name(enum tdi_state state)
{
	static const char *const names[] = { "unlocked", "locked", "run",
					     "error" };

	return state <= ERROR ? names[state] : "?";
}

static bool pci_id_is(const char *bdf, const char *file, unsigned int id)
{
	struct tdi t = {};
	char text[16];

	snprintf(t.bdf, sizeof(t.bdf), "%s", bdf);
	return !tdi_read(&t, file, text, sizeof(text)) &&
	       strtoul(text, NULL, 0) == id;
}

static int compare_tdis(const void *a, const void *b)
{
	return strcmp(((const struct tdi *)a)->bdf, ((const struct tdi *)b)->bdf);
}

/* The knobs of the platform: a register that reading does not change */
static void read_features(struct machine *m, const char *bdf)
{
	char path[TEXT_LEN];
	volatile __u32 *regs;
	int fd;

	snprintf(path, sizeof(path), DEVICES "/%.15s/resource0", bdf);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	regs = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (regs == MAP_FAILED)
		return;
	m->t0_blocked_locked = regs[REG_FEATURES / 4] & FEATURE_T0_BLOCKED;
	m->bme_clear_is_error = regs[REG_FEATURES / 4] & FEATURE_BME_ERROR;
	munmap((void *)regs, PAGE);
}

static void find_devices(struct machine *m)
{
	struct dirent *entry;
	DIR *dir = opendir(DEVICES);

	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		struct tdi *t = &m->tdi[m->n_tdis];
		unsigned int domain, bus, device, function;

		if (!pci_id_is(entry->d_name, "vendor", 0x1b36))
			continue;
		if (pci_id_is(entry->d_name, "device", 0x0def))
			read_features(m, entry->d_name);
		if (m->n_tdis == MAX_TDIS ||
		    !pci_id_is(entry->d_name, "device", 0x0dee) ||
		    sscanf(entry->d_name, "%x:%x:%x.%x", &domain, &bus, &device,
			   &function) != 4)
			continue;
		snprintf(t->bdf, sizeof(t->bdf), "%.15s", entry->d_name);
		t->id = domain << 16 | bus << 8 | device << 3 | function;
		t->fd = -1;
		m->n_tdis++;
	}
	closedir(dir);
	qsort(m->tdi, m->n_tdis, sizeof(m->tdi[0]), compare_tdis);
}

/* The first TSM that locks functions; TSMs for links do not */
void machine_find_tsm(struct machine *m)
{
	struct dirent *entry;
	DIR *dir = opendir(CLASS);

	m->tsm[0] = '\0';
	if (!dir)
		return;
	while (!m->tsm[0] && (entry = readdir(dir))) {
		char path[TEXT_LEN], mode[16];

		snprintf(path, sizeof(path), CLASS "/%.32s/pci_mode",
			 entry->d_name);
		if (!read_text(path, mode, sizeof(mode)) &&
		    !strcmp(mode, "devsec"))
			snprintf(m->tsm, sizeof(m->tsm), "%.31s",
				 entry->d_name);
	}
	closedir(dir);
}

/* The TSM is there again, if it is not */
int tsm_back(struct machine *m)
{
	int rc;

	machine_find_tsm(m);
	if (m->tsm[0])
		return 0;
	rc = tsm_come();
	machine_find_tsm(m);
	if (!rc && !m->tsm[0])
		rc = -ENXIO;
	return rc;
}

/* The interface id of each TDI: from DVSEC (vendor 1b36, id 7d15), dword 3 */
static int read_interface(struct tdi *t)
{
	char path[TEXT_LEN];
	__u32 dword[4];
	int at = 0x100, fd, rc = -ENXIO;

	snprintf(path, sizeof(path), DEVICES "/%s/config", t->bdf);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (at && pread(fd, dword, sizeof(dword), at) == sizeof(dword)) {
		if ((dword[0] & 0xffff) == 0x23 &&
		    (dword[1] & 0xffff) == 0x1b36 &&
		    (dword[2] & 0xffff) == 0x7d15) {
			t->interface = dword[3];
			rc = 0;
			break;
		}
		at = dword[0] >> 20;
	}
	close(fd);
	return rc;
}

static const char *missing_needs(struct machine *m, unsigned int needs)
{
	struct tdi_test_info info;

	if (needs & NEED_TWO && m->n_tdis < 2)
		return "only one TDI";
	if (needs & NEED_TSM && !m->tsm[0]) {
		m->broken = tsm_has_driver();
		return "no devsec TSM in " CLASS;
	}
	if (needs & NEED_TSM && !tdi_has(&m->tdi[0], "tsm/lock")) {
		m->broken = true;
		return "there is a devsec TSM, and the TDI has no tsm/lock";
	}
	if (needs & NEED_TSM && !tdi_has(&m->tdi[0], "trust"))
		return "devices have no trust level";
	if (needs & NEED_TSM_DRIVER && !tsm_can_go())
		return "the TSM has no driver tdisp_emu.tsm that could be unbound";
	if (needs & NEED_VIOMMU && !m->rules->viommu)
		return "this hardware model has no vIOMMU";
	if (needs & NEED_ACCOUNTING) {
		m->broken = true;
		if (!tdi_is_bound(&m->tdi[0]) && tdi_bind(&m->tdi[0]))
			return "the TDI cannot be bound to tdi_test";
		if (tdi_open(&m->tdi[0]) || tdi_info(&m->tdi[0], &info))
			return "the driver tdi_test does not answer";
		m->broken = false;
		if (info.live == -EOPNOTSUPP)
			return "live mappings are not counted";
		tdi_close(&m->tdi[0]);
	}
	return NULL;
}

const char *machine_open(struct machine *m, unsigned int needs)
{
	struct tdi_test_platform platform = {};
	int i;

	memset(m, 0, sizeof(*m));
	m->rules = &rules[MODEL_N];
	if (geteuid())
		return "not root";
	m->control = open("/dev/tdi_test", O_RDWR | O_CLOEXEC);
	if (m->control < 0)
		return "no /dev/tdi_test: kernel without CONFIG_TDI_TEST";
	find_devices(m);
	if (!m->n_tdis)
		return "no TDI of the emulated platform (1b36:0dee)";
	for (i = 0; i < m->n_tdis; i++)
		if (read_interface(&m->tdi[i]))
			return "a TDI without interface id";
	machine_find_tsm(m);
	if (ioctl(m->control, TDI_TEST_PLATFORM, &platform))
		return "/dev/tdi_test does not answer";
	if (platform.model >= 0 && platform.model <= MODEL_N) {
		m->model = platform.model;
		m->rules = &rules[m->model];
		m->vtom = platform.vtom;
		m->c_bit = platform.c_bit;
	}
	if (needs & NEED_PLATFORM && platform.model < 0)
		return "no security processor: kernel without CONFIG_TDISP_EMU, or no platform";
	if (needs & NEED_PLATFORM && !platform.enabled)
		return "the emulated vendor is off (cc_emulated=on)";
	return missing_needs(m, needs);
}

void machine_close(struct machine *m)
{
	int i;

	for (i = 0; i < m->n_tdis; i++)
		tdi_close(&m->tdi[i]);
	if (m->control >= 0)
		close(m->control);
	m->control = -1;
}

/*
 * Unlocked, and the platform says so too; no driver, trust level auto, nothing
 * injected, bus mastering off. What the platform counted stays for test_check().
 */
int tdi_reset(struct machine *m, struct tdi *t)
{
	int rc, opcode;

	rc = tdi_unbind(t) ?: probe_mode(m, t, 0);
	for (opcode = CMD_LOCK; !rc && opcode <= CMD_IOTLB_INVALIDATE;
	     opcode++)
		platform_inject(m, t, opcode, INJECT_CLEAR, 0, 0);
	if (!rc && m->tsm[0] && tdi_has(t, "tsm/unlock")) {
		char name[32];

		rc = tdi_read(t, "tsm/lock", name, sizeof(name));
		if (!rc && name[0])
			rc = tdi_unlock(m, t);
	}
	if (!rc && tdi_has(t, "trust"))
		rc = tdi_trust(t, "auto");
	if (!rc && platform_state(m, t) > UNLOCKED)
		rc = -EUCLEAN;
	return rc;
}

/* The same to begin with: what was announced or counted before does not matter */
int tdi_begin(struct machine *m, struct tdi *t)
{
	__u64 unannounced, missing;
	int rc = tdi_reset(m, t);

	if (!rc)
		platform_check(m, &unannounced, &missing);
	return rc;
}

/* From UNLOCKED and without a driver */
int tdi_to(struct machine *m, struct tdi *t, enum tdi_state state,
	   const char *trust)
{
	int rc = tdi_trust(t, trust);

	if (!rc && state >= LOCKED)
		rc = tdi_lock(m, t);
	if (!rc && state >= RUN)
		rc = tdi_accept(t);
	if (!rc && state == ERROR)
		rc = platform_simple(m, t, CMD_SET_ERROR);
	if (rc)
		return rc;
	return platform_state(m, t) == (int)state ? 0 : -EPROTO;
}
