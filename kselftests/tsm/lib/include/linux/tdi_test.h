/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Test driver for the TDIs of the emulated TEE-IO platform
 *
 * /dev/tdi_test is there as long as the driver is. It says what the next probe
 * of a TDI shall do, and talks to the platform's security processor.
 * /dev/tdi_test-<BDF> is there while the driver is bound to a TDI. It makes
 * mappings by any entry point of the DMA API, and starts DMA. Everything that a
 * file made goes away with the file; each TDI can be opened once.
 *
 * Both need CAP_SYS_RAWIO, and taint the kernel.
 */
#ifndef _UAPI_LINUX_TDI_TEST_H
#define _UAPI_LINUX_TDI_TEST_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define TDI_TEST_MAX_SIZE	(4 << 20)
#define TDI_TEST_MAX_DATA	(1 << 20)
#define TDI_TEST_BUFFER_SIZE	4096
#define TDI_TEST_NO_SLOT	(~0U)

/* A BDF in these structures: domain << 16 | bus << 8 | devfn */

/*
 * The entry points of the DMA API. The attributes are ignored by those that
 * have no attrs parameter: RESOURCE, PAGES and POOL.
 */
enum tdi_test_entry {
	TDI_TEST_PHYS,
	TDI_TEST_PAGE,
	TDI_TEST_SINGLE,
	TDI_TEST_RESOURCE,
	TDI_TEST_SG,
	TDI_TEST_SGTABLE,
	TDI_TEST_COHERENT,
	TDI_TEST_MANAGED,
	TDI_TEST_PAGES,
	TDI_TEST_NONCONTIGUOUS,
	TDI_TEST_POOL,
	TDI_TEST_IOVA_LINK,
	TDI_TEST_NR_ENTRIES
};

/* Flags of a mapping: attributes, and what memory is mapped */
#define TDI_TEST_CC_SHARED	(1U << 0)	/* DMA_ATTR_CC_SHARED */
#define TDI_TEST_MMIO		(1U << 1)	/* DMA_ATTR_MMIO: PHYS maps the TDI's own BUFFER */
#define TDI_TEST_SHARED_MEMORY	(1U << 2)	/* set_memory_decrypted() before */
#define TDI_TEST_REQUIRE_COHERENT (1U << 3)	/* DMA_ATTR_REQUIRE_COHERENT: no bounce */
#define TDI_TEST_DMA32		(1U << 4)	/* memory below 4 GiB */
#define TDI_TEST_UNMAP_FLAGS	(1U << 31)	/* unmap with other attributes, for once */

/*
 * @entry: enum tdi_test_entry
 * @flags: TDI_TEST_*
 * @size: in bytes, up to TDI_TEST_MAX_SIZE; 0: two pages. At most a page with POOL
 * @dir: enum dma_data_direction; of streaming mappings
 * @slot: out: what the mapping is called, or TDI_TEST_NO_SLOT if there is none
 * @ret: out: result of the entry point. DMA address, number of entries, 1 or 0 for
 *	 a pointer, or -errno: whatever it returns
 * @addr: out: DMA address of the first byte
 * @segments: out: number of pieces with consecutive DMA addresses
 */
struct tdi_test_map {
	__u32 entry;
	__u32 flags;
	__aligned_u64 size;
	__u32 dir;
	__u32 slot;
	__s64 ret;
	__aligned_u64 addr;
	__u32 segments;
	__u32 reserved;
};

/* @flags: with TDI_TEST_UNMAP_FLAGS, the attributes for the unmap */
struct tdi_test_unmap {
	__u32 slot;
	__u32 flags;
};

/*
 * An address to dma_unmap_phys(), as of a driver that unmaps twice, or unmaps
 * what an earlier binding has mapped. Nothing else is looked at.
 */
struct tdi_test_unmap_addr {
	__aligned_u64 addr;
	__aligned_u64 size;
};

/*
 * What is at @offset of a mapping.
 * @addr: out: DMA address
 * @length: out: bytes from there on with consecutive DMA addresses
 * @phys: out: address of the memory that the CPU sees
 * @target: out: address that the kernel's translation of @addr yields; differs
 *	    from @phys in a mapping that is bounced
 */
struct tdi_test_resolve {
	__u32 slot;
	__u32 reserved;
	__aligned_u64 offset;
	__aligned_u64 addr;
	__aligned_u64 length;
	__aligned_u64 phys;
	__aligned_u64 target;
};

/*
 * Copy between user memory and the CPU's view of a mapping, with the
 * dma_sync_*() that a driver has to do.
 */
#define TDI_TEST_RW_WRITE	(1U << 0)
#define TDI_TEST_RW_NO_SYNC	(1U << 1)

struct tdi_test_rw {
	__u32 slot;
	__u32 flags;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 data;
};

/* The operations of the DMA engine */
enum tdi_test_op {
	TDI_TEST_READ = 1,
	TDI_TEST_WRITE,
	TDI_TEST_COPY,
	TDI_TEST_WRITE_BUFFER,
};

/* The T bit: what a driver would use (1 if DMA is private), or what is said here */
enum tdi_test_t {
	TDI_TEST_T_DRIVER,
	TDI_TEST_T_0,
	TDI_TEST_T_1,
};

#define TDI_TEST_DMA_IRQ	(1U << 0)	/* wait for the interrupt, do not poll */
#define TDI_TEST_DMA_NO_WAIT	(1U << 1)	/* TDI_TEST_WAIT will */

/*
 * @op: enum tdi_test_op
 * @flags: TDI_TEST_DMA_*
 * @slot: @iova is an offset in this mapping; TDI_TEST_NO_SLOT: it is an address
 * @target_slot: the same for @target
 * @t: enum tdi_test_t, out: the T bit that was sent
 * @target_t: the same for @target
 * @pattern: of WRITE
 * @timeout_ms: 0: a default
 * @vector: of the interrupt
 * @status: out: the engine's STATUS, 1 (busy) after a timeout
 * @reason: out: why it failed
 * @state: out: TDISP state
 * @crc: out: CRC32 of the data moved
 * @done: out: bytes
 * @fault_iova: out: where it failed
 */
struct tdi_test_dma {
	__u32 op;
	__u32 flags;
	__u32 slot;
	__u32 target_slot;
	__u32 t;
	__u32 target_t;
	__aligned_u64 iova;
	__aligned_u64 target;
	__aligned_u64 length;
	__aligned_u64 pattern;
	__u32 timeout_ms;
	__u32 vector;
	__u32 status;
	__u32 reason;
	__u32 state;
	__u32 crc;
	__aligned_u64 done;
	__aligned_u64 fault_iova;
};

/*
 * A DMA buffer of somebody else (dma-buf): attach, map, one transfer at its start,
 * unmap, detach.
 * @fd: the DMA buffer
 * @phys: out: its memory
 * @dma: the transfer, without slots and addresses
 */
struct tdi_test_dmabuf {
	__s32 fd;
	__u32 reserved;
	__aligned_u64 phys;
	struct tdi_test_dma dma;
};

/* A register of the TDI's BAR0, also one of BUFFER */
struct tdi_test_reg {
	__u32 offset;
	__u32 write;
	__aligned_u64 value;
	__u32 width;	/* 4 or 8 bytes */
	__u32 reserved;
};

/* Bus mastering: what the PCI core does, or the bit of the COMMAND register alone */
enum tdi_test_master {
	TDI_TEST_MASTER_SET,
	TDI_TEST_MASTER_CLEAR,
	TDI_TEST_MASTER_CLEAR_RAW,
};

/* What tdi_test_info.flags says */
#define TDI_TEST_INFO_MASTER	(1U << 0)	/* the PCI core's flag */
#define TDI_TEST_INFO_MASTER_HW	(1U << 1)	/* the COMMAND register */
#define TDI_TEST_INFO_PRIVATE	(1U << 2)	/* this binding has private DMA */
#define TDI_TEST_INFO_IOMMU_DMA	(1U << 3)	/* mappings go to the IOMMU's DMA layer */
#define TDI_TEST_INFO_DMA_DEBUG	(1U << 4)	/* CONFIG_DMA_API_DEBUG */
#define TDI_TEST_INFO_UNGUARDED	(1U << 5)	/* trust may change in flight */

/*
 * @live: live mappings as the DMA API counts them, or -errno
 * @domain: type of the IOMMU domain, 0 without one
 * @mask: DMA mask
 * @max_mapping: dma_max_mapping_size()
 * @vtom: device_dma_vtom()
 * @interrupts: of all vectors
 */
struct tdi_test_info {
	__u32 bdf;
	__u32 interface_id;
	__u32 state;
	__u32 flags;
	__s64 live;
	__u32 domain;
	__u32 vectors;
	__aligned_u64 mask;
	__aligned_u64 max_mapping;
	__aligned_u64 vtom;
	__aligned_u64 interrupts;
};

/*
 * One exchange with a DOE mailbox of the TDI, by a protocol of PCI-SIG. -EOPNOTSUPP
 * if no mailbox has it.
 * @type: 0 discovery, 1 CMA, 2 secured CMA
 * @size: of the request, a multiple of 4; out: of the response
 * @data: the request; out: the response, cut off if longer
 */
#define TDI_TEST_DOE_SIZE	64

struct tdi_test_doe {
	__u32 type;
	__u32 size;
	__u32 data[TDI_TEST_DOE_SIZE / 4];
};

/* What the driver does in probe(), until it is told otherwise */
#define TDI_TEST_PROBE_ATTEST	(1U << 0)	/* switch to private DMA, see pci-tsm.h */
#define TDI_TEST_PROBE_MASTER	(1U << 1)	/* with bus mastering on */
#define TDI_TEST_PROBE_MAP	(1U << 2)	/* with a live streaming mapping */
#define TDI_TEST_PROBE_COHERENT	(1U << 3)	/* with a live coherent allocation */
#define TDI_TEST_PROBE_DMA_FIRST (1U << 4)	/* after T=0 DMA with shared memory */
#define TDI_TEST_PROBE_AGAIN	(1U << 5)	/* switch twice; attest_again is the 2nd result */
#define TDI_TEST_PROBE_IGNORE	(1U << 6)	/* go on when the switch was refused */
#define TDI_TEST_PROBE_DEFER	(1U << 7)	/* -EPROBE_DEFER at the end */
#define TDI_TEST_PROBE_FAIL	(1U << 8)	/* -ENXIO at the end */
#define TDI_TEST_PROBE_NO_IRQ	(1U << 9)	/* without interrupts */
#define TDI_TEST_PROBE_THREAD	(1U << 10)	/* switch in another thread, and wait for it */

/*
 * @bdf: of a TDI
 * @mode: TDI_TEST_PROBE_*
 * @probes: out: how often probe() was called since the mode was set
 * @attest: out: result of the switch, the same for @again; 1 if it was not called
 * @ret: out: result of the last probe()
 * @private_inside: out: DMA was private at the end of probe()
 * @first_reason: out: of the DMA of TDI_TEST_PROBE_DMA_FIRST; 0 if it went well
 */
struct tdi_test_probe {
	__u32 bdf;
	__u32 mode;
	__u32 probes;
	__s32 attest;
	__s32 again;
	__s32 ret;
	__u32 private_inside;
	__u32 first_reason;
};

/*
 * A command for the security processor.
 * @ret: out: 0 or -errno
 * @data_len: of a buffer in private memory whose address and size become
 *	      arg[1] and arg[2], which is what EVIDENCE wants; 0: none
 * @data: where to copy the buffer
 */
struct tdi_test_command {
	__u32 tdi;
	__u32 opcode;
	__aligned_u64 arg[6];
	__aligned_u64 out[4];
	__s32 ret;
	__u32 data_len;
	__aligned_u64 data;
};

/*
 * What the driver demands of its device when it attests it. Replaces what was
 * set before; nothing is set at first, and then each device is refused.
 * @root: root certificate in DER. None: no root is good
 * @reference: good measurements, in the format of the device's. None: all are
 */
struct tdi_test_policy {
	__aligned_u64 root;
	__aligned_u64 reference;
	__u32 root_len;
	__u32 reference_len;
};

/* @model: 0 A, 1 B, 2 N, or -errno; @enabled: the emulated vendor is active */
struct tdi_test_platform {
	__s32 model;
	__u32 enabled;
	__u32 c_bit;
	__u32 reserved;
	__aligned_u64 vtom;
};

/* /dev/tdi_test */
#define TDI_TEST_SET_PROBE	_IOW(0xD7, 0x00, struct tdi_test_probe)
#define TDI_TEST_GET_PROBE	_IOWR(0xD7, 0x01, struct tdi_test_probe)
#define TDI_TEST_COMMAND	_IOWR(0xD7, 0x02, struct tdi_test_command)
#define TDI_TEST_PLATFORM	_IOR(0xD7, 0x03, struct tdi_test_platform)
#define TDI_TEST_SET_POLICY	_IOW(0xD7, 0x04, struct tdi_test_policy)
/* The parameter: 1 to register a TSM for links which can do nothing, 0 to end it */
#define TDI_TEST_LINK_TSM	_IO(0xD7, 0x05)

/* /dev/tdi_test-<BDF> */
#define TDI_TEST_INFO		_IOR(0xD7, 0x08, struct tdi_test_info)
#define TDI_TEST_MAP		_IOWR(0xD7, 0x09, struct tdi_test_map)
#define TDI_TEST_UNMAP		_IOW(0xD7, 0x0a, struct tdi_test_unmap)
#define TDI_TEST_UNMAP_ADDR	_IOW(0xD7, 0x17, struct tdi_test_unmap_addr)
#define TDI_TEST_RESOLVE	_IOWR(0xD7, 0x0b, struct tdi_test_resolve)
#define TDI_TEST_RW		_IOW(0xD7, 0x0c, struct tdi_test_rw)
#define TDI_TEST_DMA		_IOWR(0xD7, 0x0d, struct tdi_test_dma)
#define TDI_TEST_WAIT		_IOWR(0xD7, 0x0e, struct tdi_test_dma)
#define TDI_TEST_REG		_IOWR(0xD7, 0x0f, struct tdi_test_reg)
/* The parameter: bits of the DMA mask */
#define TDI_TEST_SET_MASK	_IO(0xD7, 0x10)
/* The parameter: enum tdi_test_master */
#define TDI_TEST_SET_MASTER	_IO(0xD7, 0x11)
/* Ask for private DMA now: has to be refused, as probe() is over */
#define TDI_TEST_ATTEST		_IO(0xD7, 0x12)
/* Freeze and unfreeze the DMA of the device, as a change of trust does */
#define TDI_TEST_FREEZE		_IO(0xD7, 0x13)
/* Send the MSI-X of the vector that is the parameter */
#define TDI_TEST_RAISE		_IO(0xD7, 0x14)
#define TDI_TEST_DMABUF		_IOWR(0xD7, 0x16, struct tdi_test_dmabuf)
#define TDI_TEST_DOE		_IOWR(0xD7, 0x15, struct tdi_test_doe)

#endif /* _UAPI_LINUX_TDI_TEST_H */
