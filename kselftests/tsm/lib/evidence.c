// SPDX-License-Identifier: GPL-2.0-only
/* A client of the generic netlink family device-evidence. */
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include "evidence.h"

#define ANSWER_SIZE 32768

/* A request in the making, or an answer */
struct message {
	struct nlmsghdr nl;
	struct genlmsghdr genl;
	unsigned char attrs[512];
};

static void message_start(struct message *msg, __u16 family, __u8 cmd,
			  __u16 flags)
{
	memset(msg, 0, sizeof(*msg));
	msg->nl.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN);
	msg->nl.nlmsg_type = family;
	msg->nl.nlmsg_flags = NLM_F_REQUEST | flags;
	msg->genl.cmd = cmd;
	msg->genl.version = 1;
}

static void message_put(struct message *msg, __u16 type, const void *data,
			size_t length)
{
	struct nlattr *attr = (void *)((char *)msg + msg->nl.nlmsg_len);

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + length;
	memcpy((char *)attr + NLA_HDRLEN, data, length);
	msg->nl.nlmsg_len += NLA_ALIGN(attr->nla_len);
}

static const struct nlattr *find_attr(const struct nlmsghdr *nl, __u16 type)
{
	const char *end = (const char *)nl + nl->nlmsg_len;
	const char *at = (const char *)nl + NLMSG_LENGTH(GENL_HDRLEN);

	while (at + NLA_HDRLEN <= end) {
		const struct nlattr *attr = (const void *)at;

		if (attr->nla_len < NLA_HDRLEN || at + attr->nla_len > end)
			break;
		if ((attr->nla_type & NLA_TYPE_MASK) == type)
			return attr;
		at += NLA_ALIGN(attr->nla_len);
	}
	return NULL;
}

static const void *attr_data(const struct nlattr *attr)
{
	return (const char *)attr + NLA_HDRLEN;
}

/*
 * Send, and call @answer for each message until the last: 0 or -errno. Both the
 * acknowledgement and the end of a dump carry an error.
 */
static int talk(int fd, struct message *msg,
		int (*answer)(const struct nlmsghdr *nl, void *data), void *data)
{
	static char buf[ANSWER_SIZE];
	int rc = 0;

	if (send(fd, msg, msg->nl.nlmsg_len, 0) < 0)
		return -errno;
	for (;;) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);
		struct nlmsghdr *nl = (void *)buf;

		if (n < 0)
			return -errno;
		for (; NLMSG_OK(nl, n); nl = NLMSG_NEXT(nl, n)) {
			if (nl->nlmsg_type == NLMSG_ERROR ||
			    nl->nlmsg_type == NLMSG_DONE) {
				int error = *(int *)NLMSG_DATA(nl);

				return error < 0 ? error : rc;
			}
			if (answer && !rc)
				rc = answer(nl, data);
		}
	}
}

static int take_family(const struct nlmsghdr *nl, void *data)
{
	const struct nlattr *id = find_attr(nl, CTRL_ATTR_FAMILY_ID);

	if (!id)
		return -EPROTO;
	memcpy(data, attr_data(id), sizeof(__u16));
	return 0;
}

/* The socket, or -ENOENT if the kernel has no such family */
int evidence_open(struct evidence *ev)
{
	struct message msg;
	int rc;

	memset(ev, 0, sizeof(*ev));
	ev->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (ev->fd < 0)
		return -errno;
	message_start(&msg, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NLM_F_ACK);
	message_put(&msg, CTRL_ATTR_FAMILY_NAME, DEVICE_EVIDENCE_FAMILY_NAME,
		    sizeof(DEVICE_EVIDENCE_FAMILY_NAME));
	rc = talk(ev->fd, &msg, take_family, &ev->family);
	if (rc)
		evidence_close(ev);
	return rc;
}

void evidence_close(struct evidence *ev)
{
	int i;

	for (i = 0; i <= DEVICE_EVIDENCE_TYPE_MAX; i++)
		free(ev->object[i].data);
	memset(ev->object, 0, sizeof(ev->object));
	if (ev->fd >= 0)
		close(ev->fd);
	ev->fd = -1;
}

static void put_device(struct message *msg, const struct tdi *t)
{
	message_put(msg, DEVICE_EVIDENCE_A_BUS, "pci", 4);
	message_put(msg, DEVICE_EVIDENCE_A_DEV, t->bdf, strlen(t->bdf) + 1);
}

/* A chunk; objects come one after the other, each from its beginning */
static int take_chunk(const struct nlmsghdr *nl, void *data)
{
	const struct nlattr *generation, *type, *size, *offset, *bytes;
	struct evidence *ev = data;
	struct evidence_object *object;
	size_t length;
	__u32 word;

	generation = find_attr(nl, DEVICE_EVIDENCE_A_GENERATION);
	type = find_attr(nl, DEVICE_EVIDENCE_A_TYPE);
	size = find_attr(nl, DEVICE_EVIDENCE_A_SIZE);
	offset = find_attr(nl, DEVICE_EVIDENCE_A_OFFSET);
	bytes = find_attr(nl, DEVICE_EVIDENCE_A_DATA);
	if (!generation || !type || !size || !offset || !bytes)
		return -EPROTO;
	memcpy(&ev->generation, attr_data(generation), sizeof(__u64));
	memcpy(&word, attr_data(type), sizeof(word));
	if (word > DEVICE_EVIDENCE_TYPE_MAX)
		return -EPROTO;
	object = &ev->object[word];
	memcpy(&word, attr_data(size), sizeof(word));
	if (!object->data) {
		object->data = malloc(word);
		object->size = word;
	}
	memcpy(&word, attr_data(offset), sizeof(word));
	length = bytes->nla_len - NLA_HDRLEN;
	if (!object->data || word != object->seen ||
	    length > object->size - word)
		return -EPROTO;
	memcpy(object->data + word, attr_data(bytes), length);
	object->seen += length;
	return 0;
}

/* All objects. @nonce may be NULL */
int evidence_get(struct evidence *ev, const struct tdi *t, const void *nonce,
		 size_t nonce_len)
{
	struct message msg;
	int i;

	for (i = 0; i <= DEVICE_EVIDENCE_TYPE_MAX; i++)
		free(ev->object[i].data);
	memset(ev->object, 0, sizeof(ev->object));
	ev->generation = 0;

	message_start(&msg, ev->family, DEVICE_EVIDENCE_CMD_GET, NLM_F_DUMP);
	put_device(&msg, t);
	if (nonce)
		message_put(&msg, DEVICE_EVIDENCE_A_NONCE, nonce, nonce_len);
	return talk(ev->fd, &msg, take_chunk, ev);
}

/* "The evidence of this generation is good" */
int evidence_validate(struct evidence *ev, const struct tdi *t,
		      __u64 generation)
{
	struct message msg;

	message_start(&msg, ev->family, DEVICE_EVIDENCE_CMD_VALIDATE, NLM_F_ACK);
	put_device(&msg, t);
	message_put(&msg, DEVICE_EVIDENCE_A_GENERATION, &generation,
		    sizeof(generation));
	return talk(ev->fd, &msg, NULL, NULL);
}
