// SPDX-License-Identifier: GPL-2.0-only
/*
 * A TDI by hand, or for a test that acts on more than one machine: reads
 * commands, one per line, and answers each with one line:
 *
 *	rc=0 slot=0 addr=0x1234000
 *	rc=-16
 *
 * rc is 0 or -errno. It begins with the answer to the command tdi, -ENODEV if
 * there is nothing to talk about, -EIO if it is broken. Mappings live as long as
 * the program: it is no test.
 *
 *	tdi				the TDI's BDF and interface, the TSM, the model
 *	reset				unlocked, unbound, trust level auto
 *	to STATE LEVEL			from there: unlocked, locked, run or error
 *	lock | accept | unlock		tsm/lock, tsm/accept, tsm/unlock
 *	trust LEVEL
 *	bind | unbind			the driver tdi_test; bind opens its file
 *	state				the TDI's state as the platform has it
 *	info				what the driver says
 *	map ENTRY SIZE [FLAGS]		ENTRY: dma_map_phys, dma_alloc_attrs, ...
 *					FLAGS: shared (CC_SHARED), shared-memory
 *	unmap SLOT
 *	dma OP SLOT LENGTH [T]		OP: read or write; T: 0 or 1, else the driver's
 *	dma-at OP ADDRESS LENGTH [T]
 *	roundtrip SLOT			DMA in both directions, compared by content
 *	announce REASON TIMES		a fault that is meant (the platform's number)
 */
#include <errno.h>
#include <stdarg.h>

#include "lib/tsm_test.h"

#define LINE 256
#define WORDS 6
#define SLOTS 64

struct tool {
	struct machine machine;
	struct tdi *tdi;
	struct tdi_test_map map[SLOTS];
	__u64 size[SLOTS];
};

static void answer(int rc, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void answer(int rc, const char *format, ...)
{
	va_list args;

	printf("rc=%d", rc);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
}

static int find(const char *word, const char *(*name)(unsigned int i), int n)
{
	int i;

	for (i = 0; i < n; i++)
		if (!strcmp(word, name(i)))
			return i;
	return -EINVAL;
}

static const char *state_at(unsigned int i)
{
	return state_name(i);
}

static const char *entry_at(unsigned int i)
{
	return entry_name(i);
}

static __u64 number(const char *word)
{
	return strtoull(word, NULL, 0);
}

static void cmd_tdi(struct tool *tool, char **words)
{
	(void)words;
	answer(0, " bdf=%s interface=%u tsm=%s model=%s", tool->tdi->bdf,
	       tool->tdi->interface, tool->machine.tsm,
	       tool->machine.rules->name);
}

static void cmd_reset(struct tool *tool, char **words)
{
	(void)words;
	answer(tdi_begin(&tool->machine, tool->tdi), "%s", "");
}

static void cmd_to(struct tool *tool, char **words)
{
	int state = find(words[1], state_at, ERROR + 1);

	answer(state < 0 ? state :
			   tdi_to(&tool->machine, tool->tdi, state, words[2]),
	       "%s", "");
}

static void cmd_lock(struct tool *tool, char **words)
{
	(void)words;
	answer(tdi_lock(&tool->machine, tool->tdi), "%s", "");
}

static void cmd_accept(struct tool *tool, char **words)
{
	(void)words;
	answer(tdi_accept(tool->tdi), "%s", "");
}

static void cmd_unlock(struct tool *tool, char **words)
{
	(void)words;
	answer(tdi_unlock(&tool->machine, tool->tdi), "%s", "");
}

static void cmd_trust(struct tool *tool, char **words)
{
	answer(tdi_trust(tool->tdi, words[1]), "%s", "");
}

static void cmd_bind(struct tool *tool, char **words)
{
	(void)words;
	answer(tdi_bind(tool->tdi) ?: tdi_open(tool->tdi), "%s", "");
}

static void cmd_unbind(struct tool *tool, char **words)
{
	(void)words;
	answer(tdi_unbind(tool->tdi), "%s", "");
}

static void cmd_state(struct tool *tool, char **words)
{
	int state = platform_state(&tool->machine, tool->tdi);

	(void)words;
	if (state < 0)
		answer(state, "%s", "");
	else
		answer(0, " state=%s dma=%d", state_name(state),
		       platform_dma_enabled(&tool->machine, tool->tdi));
}

static void cmd_info(struct tool *tool, char **words)
{
	struct tdi_test_info info = {};
	int rc = tdi_info(tool->tdi, &info);

	(void)words;
	if (rc)
		answer(rc, "%s", "");
	else
		answer(0, " live=%lld private=%d master=%d", info.live,
		       !!(info.flags & TDI_TEST_INFO_PRIVATE),
		       !!(info.flags & TDI_TEST_INFO_MASTER_HW));
}

static int flags_of(const char *word)
{
	if (!*word)
		return 0;
	if (!strcmp(word, "shared"))
		return TDI_TEST_CC_SHARED;
	if (!strcmp(word, "shared-memory"))
		return TDI_TEST_CC_SHARED | TDI_TEST_SHARED_MEMORY;
	return -EINVAL;
}

static void cmd_map(struct tool *tool, char **words)
{
	int entry = find(words[1], entry_at, TDI_TEST_NR_ENTRIES);
	int flags = flags_of(words[3]), rc;
	__u64 size = number(words[2]);
	struct tdi_test_map map;

	if (entry < 0 || flags < 0 || !size) {
		answer(-EINVAL, "%s", "");
		return;
	}
	rc = tdi_map(tool->tdi, entry, flags, size, &map);
	if (rc || map.slot == TDI_TEST_NO_SLOT) {
		answer(rc ?: -EIO, " ret=%lld", map.ret);
		return;
	}
	if (map.slot < SLOTS) {
		tool->map[map.slot] = map;
		tool->size[map.slot] = size;
	}
	answer(0, " slot=%u addr=%#llx", map.slot, map.addr);
}

static void cmd_unmap(struct tool *tool, char **words)
{
	answer(tdi_unmap(tool->tdi, number(words[1])), "%s", "");
}

static int op_of(const char *word)
{
	if (!strcmp(word, "read"))
		return TDI_TEST_READ;
	return strcmp(word, "write") ? -EINVAL : TDI_TEST_WRITE;
}

static int t_of(const char *word)
{
	if (!strcmp(word, "0"))
		return TDI_TEST_T_0;
	return strcmp(word, "1") ? TDI_TEST_T_DRIVER : TDI_TEST_T_1;
}

static void say_dma(struct tool *tool, const char *op, const char *t,
		    struct tdi_test_dma *dma)
{
	int rc = op_of(op);

	if (rc > 0) {
		dma->op = rc;
		dma->t = t_of(t);
		dma->target_slot = TDI_TEST_NO_SLOT;
		dma->pattern = 0x5aa5c33c0ff09669ULL;
		rc = tdi_dma(tool->tdi, dma);
	}
	answer(rc, " status=%u reason=%u done=%llu t=%u", dma->status,
	       dma->reason, dma->done, dma->t);
}

static void cmd_dma(struct tool *tool, char **words)
{
	struct tdi_test_dma dma = {
		.slot = number(words[2]),
		.length = number(words[3]),
	};

	say_dma(tool, words[1], words[4], &dma);
}

static void cmd_dma_at(struct tool *tool, char **words)
{
	struct tdi_test_dma dma = {
		.slot = TDI_TEST_NO_SLOT,
		.iova = number(words[2]),
		.length = number(words[3]),
	};

	say_dma(tool, words[1], words[4], &dma);
}

static void cmd_roundtrip(struct tool *tool, char **words)
{
	__u64 slot = number(words[1]);
	char why[TEXT_LEN] = "";
	int rc = -EINVAL;

	if (slot < SLOTS && tool->size[slot])
		rc = tdi_roundtrip(tool->tdi, &tool->map[slot],
				   tool->size[slot], TDI_TEST_T_DRIVER, why,
				   sizeof(why));
	answer(rc, "%s%s", rc && *why ? " why=" : "", rc ? why : "");
}

static void cmd_announce(struct tool *tool, char **words)
{
	answer(platform_announce(&tool->machine, tool->tdi, number(words[1]),
				 number(words[2])),
	       "%s", "");
}

/* @words: how many follow at least */
static const struct {
	const char *name;
	int words;
	void (*run)(struct tool *tool, char **words);
} commands[] = {
	{ "tdi", 0, cmd_tdi },		   { "reset", 0, cmd_reset },
	{ "to", 2, cmd_to },		   { "lock", 0, cmd_lock },
	{ "accept", 0, cmd_accept },	   { "unlock", 0, cmd_unlock },
	{ "trust", 1, cmd_trust },	   { "bind", 0, cmd_bind },
	{ "unbind", 0, cmd_unbind },	   { "state", 0, cmd_state },
	{ "info", 0, cmd_info },	   { "map", 2, cmd_map },
	{ "unmap", 1, cmd_unmap },	   { "dma", 3, cmd_dma },
	{ "dma-at", 3, cmd_dma_at },	   { "roundtrip", 1, cmd_roundtrip },
	{ "announce", 2, cmd_announce },
};

static void carry_out(struct tool *tool, char *line)
{
	char *words[WORDS] = { "", "", "", "", "", "" }, *word;
	unsigned int i, n = 0;

	for (word = strtok(line, " \t\n"); word && n < WORDS;
	     word = strtok(NULL, " \t\n"))
		words[n++] = word;
	for (i = 0; n && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(words[0], commands[i].name))
			continue;
		if ((int)n <= commands[i].words)
			break;
		commands[i].run(tool, words);
		return;
	}
	answer(-EINVAL, " why=no such command, or words are missing");
}

int main(int argc, char **argv)
{
	int index = argc > 1 ? atoi(argv[1]) : 0;
	static struct tool tool;
	char line[LINE];
	const char *why;

	why = machine_open(&tool.machine, NEED_ALL);
	if (!why && (index < 0 || index >= tool.machine.n_tdis))
		why = "no such TDI";
	if (why) {
		answer(tool.machine.broken ? -EIO : -ENODEV, " why=%s", why);
		return tool.machine.broken ? 1 : 4; /* KSFT_FAIL, KSFT_SKIP */
	}
	tool.tdi = &tool.machine.tdi[index];
	cmd_tdi(&tool, NULL);
	while (fgets(line, sizeof(line), stdin))
		carry_out(&tool, line);
	machine_close(&tool.machine);
	return 0;
}
