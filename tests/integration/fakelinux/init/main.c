// SPDX-License-Identifier: GPL-2.0-only
int sort(int n);

void start_kernel(void)
{
	for (;;)
		sort(1);
}
