/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Evidence of devices: generic netlink family "device-evidence"
 *
 * See Documentation/ABI/testing/netlink-device-evidence.
 */
#ifndef _UAPI_LINUX_DEVICE_EVIDENCE_H
#define _UAPI_LINUX_DEVICE_EVIDENCE_H

#define DEVICE_EVIDENCE_FAMILY_NAME	"device-evidence"
#define DEVICE_EVIDENCE_FAMILY_VERSION	1

/* Longest nonce, in bytes */
#define DEVICE_EVIDENCE_NONCE_MAX	32
/* Most bytes of an object in one message */
#define DEVICE_EVIDENCE_CHUNK_MAX	2048
/* Longest object, in bytes */
#define DEVICE_EVIDENCE_OBJECT_MAX	(16 << 20)

enum device_evidence_type {
	/* Certificate chains, by SPDM slot */
	DEVICE_EVIDENCE_TYPE_CERT0,
	DEVICE_EVIDENCE_TYPE_CERT1,
	DEVICE_EVIDENCE_TYPE_CERT2,
	DEVICE_EVIDENCE_TYPE_CERT3,
	DEVICE_EVIDENCE_TYPE_CERT4,
	DEVICE_EVIDENCE_TYPE_CERT5,
	DEVICE_EVIDENCE_TYPE_CERT6,
	DEVICE_EVIDENCE_TYPE_CERT7,
	/* SPDM messages of version, capabilities and algorithms */
	DEVICE_EVIDENCE_TYPE_VCA,
	/* Signed measurements */
	DEVICE_EVIDENCE_TYPE_MEASUREMENTS,
	/* TDISP device interface report */
	DEVICE_EVIDENCE_TYPE_REPORT,

	__DEVICE_EVIDENCE_TYPE_MAX,
	DEVICE_EVIDENCE_TYPE_MAX = __DEVICE_EVIDENCE_TYPE_MAX - 1
};

enum device_evidence_cmd {
	DEVICE_EVIDENCE_CMD_UNSPEC,
	/*
	 * dump: BUS, DEV, and optionally TYPES and NONCE. Answered by messages
	 * with GENERATION, TYPE, SIZE, OFFSET and DATA, objects in order of
	 * their type and each from its beginning to its end.
	 */
	DEVICE_EVIDENCE_CMD_GET,
	/*
	 * do: BUS, DEV, GENERATION. The evidence of that lock was found good.
	 */
	DEVICE_EVIDENCE_CMD_VALIDATE,

	__DEVICE_EVIDENCE_CMD_MAX,
	DEVICE_EVIDENCE_CMD_MAX = __DEVICE_EVIDENCE_CMD_MAX - 1
};

enum device_evidence_attr {
	DEVICE_EVIDENCE_A_UNSPEC,
	DEVICE_EVIDENCE_A_BUS,		/* string, name of the bus: "pci" */
	DEVICE_EVIDENCE_A_DEV,		/* string, name of the device */
	DEVICE_EVIDENCE_A_TYPES,	/* u32, bit per type; all if absent */
	DEVICE_EVIDENCE_A_NONCE,	/* binary, 1 to NONCE_MAX bytes */
	DEVICE_EVIDENCE_A_GENERATION,	/* u64 */
	DEVICE_EVIDENCE_A_TYPE,		/* u32, enum device_evidence_type */
	DEVICE_EVIDENCE_A_SIZE,		/* u32, bytes of the object */
	DEVICE_EVIDENCE_A_OFFSET,	/* u32, of DATA in the object */
	DEVICE_EVIDENCE_A_DATA,		/* binary */
	DEVICE_EVIDENCE_A_PAD,

	__DEVICE_EVIDENCE_A_MAX,
	DEVICE_EVIDENCE_A_MAX = __DEVICE_EVIDENCE_A_MAX - 1
};

#endif /* _UAPI_LINUX_DEVICE_EVIDENCE_H */
