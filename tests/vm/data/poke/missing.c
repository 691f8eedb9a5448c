// SPDX-License-Identifier: GPL-2.0-only
/* Announces two faults, and causes one. */
#include "poke.h"

int main(void)
{
	struct function tdi;
	uint64_t gpa;

	if (find(&tdi, "0x0dee"))
		skip_all("no emulated platform");
	plan(1);
	page_of(&gpa);
	announce(&tdi, 5, 2);
	dma_write(&tdi, gpa, 0);
	check(1, "all is well");
	return finished();
}
