/* SPDX-License-Identifier: GPL-2.0-only */
/* A client of the generic netlink family device-evidence. */
#ifndef TSM_TEST_EVIDENCE_H
#define TSM_TEST_EVIDENCE_H

#include <linux/device-evidence.h>

#include "tsm_test.h"

/* @data: NULL if the device has no such object; @seen: bytes received */
struct evidence_object {
	unsigned char *data;
	size_t size;
	size_t seen;
};

struct evidence {
	int fd;
	__u16 family;
	__u64 generation;
	struct evidence_object object[DEVICE_EVIDENCE_TYPE_MAX + 1];
};

int evidence_open(struct evidence *ev);
void evidence_close(struct evidence *ev);
int evidence_get(struct evidence *ev, const struct tdi *t, const void *nonce,
		 size_t nonce_len);
int evidence_validate(struct evidence *ev, const struct tdi *t,
		      __u64 generation);

#endif /* TSM_TEST_EVIDENCE_H */
