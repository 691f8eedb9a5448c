// SPDX-License-Identifier: GPL-2.0-only
/* A DMA to a private page is blocked, as announced; to a shared page it arrives. */
#include "poke.h"

int main(void)
{
	struct function tsm, tdi;
	uint64_t gpa;
	char *page;

	if (find(&tsm, "0x0def") || find(&tdi, "0x0dee"))
		skip_all("no emulated platform");
	plan(3);
	page = page_of(&gpa);
	announce(&tdi, 5, 1);
	check(dma_write(&tdi, gpa, 0) == 5 && page[0] == (char)0xee, "blocked");
	check(page_state(&tsm, gpa, 1) == 0, "shared");
	check(dma_write(&tdi, gpa, 0) == 0 && page[4095] == 0x55, "arrives");
	page_state(&tsm, gpa, 0);
	return finished();
}
