// SPDX-License-Identifier: GPL-2.0-only
/* Says that all is well, while the device broke a rule. */
#include "poke.h"

int main(void)
{
	struct function tdi;
	uint64_t gpa;

	if (find(&tdi, "0x0dee"))
		skip_all("no emulated platform");
	plan(1);
	page_of(&gpa);
	dma_write(&tdi, gpa, 0);
	check(1, "all is well");
	return finished();
}
