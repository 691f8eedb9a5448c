// SPDX-License-Identifier: GPL-2.0-only
/* DMA without a pause, for somebody to kill the platform meanwhile: it ends when the device does. */
#include <time.h>

#include "poke.h"

#define GONE 0xffffffff
#define LIMIT_S 60

int main(void)
{
	struct function tsm, tdi;
	unsigned long done = 0;
	time_t end = time(NULL) + LIMIT_S;
	uint64_t gpa;

	if (find(&tsm, "0x0def") || find(&tdi, "0x0dee"))
		skip_all("no emulated platform");
	plan(3);
	page_of(&gpa);
	check(page_state(&tsm, gpa, 1) == 0, "shared");
	while (time(NULL) < end && get(&tdi, 0) != GONE) {
		uint32_t reason = dma_write(&tdi, gpa, 0);

		if (reason && reason != GONE)
			break;
		done++;
		if (done == 100)
			printf("# streaming\n");
	}
	check(done > 100, "some DMA was done");
	check(get(&tdi, 0) == GONE, "the device is gone and the program is not");
	return finished();
}
