// SPDX-License-Identifier: GPL-2.0-only
/* Takes its time, so that somebody can kill the platform or QEMU meanwhile. */
#include "poke.h"

int main(void)
{
	plan(1);
	sleep(20);
	check(1, "waited");
	return finished();
}
