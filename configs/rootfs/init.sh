#!/usr/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=dash
#
# PID 1 of every machine that the harness boots from its own root file system (/sbin/tdisp-init).
# It mounts, reads the seed, brings up the network, keeps sshd alive and reaps children.
#
# The seed is a raw tar archive on the virtio-blk disk with the serial "seed", unpacked to /
# (harness/core/seed.py): in run/tdisp
#   ssh_host_key (as dropbear wants it), authorized_keys, hostname, network
# where `network` holds shell assignments: address=10.9.0.15 netmask=255.255.255.0
# gateway=10.9.0.2; and the directories and links that udev and systemd would make.
#
# Few processes are started, and small ones: under TCG one that loads shared libraries costs 20 to
# 40 ms, an applet of the static busybox half of that. For the same reason sshd is dropbear.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
bb=/usr/bin/busybox
seed=/run/tdisp
sshd_pid=
announcing=none

say() {
	echo "tdisp-harness: $*" > /dev/console
}

# SIGTERM, SIGUSR2 (busybox poweroff): power off without a shutdown ceremony; the disk is thrown away
power_off() {
	say "power off"
	$bb sync
	echo o > /proc/sysrq-trigger
	while :; do $bb sleep 10; done
}

# What an initrd has mounted is left alone. One process for all: the root is still writable
mount_first() {
	{
		[ -e /proc/self ] || echo proc /proc proc defaults
		[ -e /sys/kernel ] || echo sysfs /sys sysfs defaults
		[ -e /dev/kmsg ] || echo devtmpfs /dev devtmpfs defaults
		echo tmpfs /run tmpfs mode=755
	} > /run/fstab
	$bb mount -a -T /run/fstab
} 2> /dev/null

# What the kernel lacks fails alone. sshd starts meanwhile
mount_rest() {
	echo "devpts /dev/pts devpts gid=5,mode=620,ptmxmode=666
tmpfs /dev/shm tmpfs mode=1777
tmpfs /tmp tmpfs mode=1777
cgroup2 /sys/fs/cgroup cgroup2 defaults
debugfs /sys/kernel/debug debugfs defaults
tracefs /sys/kernel/tracing tracefs defaults
securityfs /sys/kernel/security securityfs defaults
configfs /sys/kernel/config configfs defaults
hugetlbfs /dev/hugepages hugetlbfs defaults" > /run/fstab
	$bb mount -a -T /run/fstab
} 2> /dev/null

# The kernel of a distribution is modular: load the drivers of the devices that are there. Not those
# of disk controllers (class 01): the root disk is there already.
load_drivers() {
	set --
	for alias in /sys/bus/pci/devices/*/modalias; do
		read -r name < "$alias" || continue
		case $name in *bc01*) ;; *) set -- "$@" "$name" ;; esac
	done
	modprobe -abq -- af_packet "$@"
	set --
	for alias in /sys/bus/virtio/devices/*/modalias; do
		[ -e "$alias" ] && read -r name < "$alias" && set -- "$@" "$name"
	done
	[ $# -eq 0 ] || modprobe -abq -- "$@"
} 2> /dev/null

read_seed() {
	for file in /sys/block/*/serial; do
		[ -e "$file" ] || continue
		serial=
		# virtio-blk ends the serial without a newline: read fails, but has read
		read -r serial < "$file"
		[ "$serial" = seed ] || continue
		disk=${file#/sys/block/}
		$bb tar -C / -xf "/dev/${disk%/serial}" && return 0
		say "seed disk unreadable"
		return 1
	done
	say "no seed disk"
	return 1
}

# The interface that the harness connects to: a fixed address, nothing to wait for
network_up() {
	address=
	netmask=
	gateway=
	# shellcheck source=/dev/null
	. "$seed/network"
	tries=0
	while [ $tries -lt 100 ]; do
		for device in /sys/class/net/*/device; do
			[ -e "$device" ] || continue
			nic=${device#/sys/class/net/}
			$bb ifconfig "${nic%/device}" "$address" netmask "$netmask" up
			return 0
		done
		tries=$((tries + 1))
		$bb sleep 0.1
	done
	say "no network device"
	return 1
}

network_rest() {
	$bb ifconfig lo up
	[ -z "$gateway" ] || $bb route add default gw "$gateway"
}

# sshd is ready when something listens on port 22 (0x16), state 0A
sshd_listens() {
	while read -r _ local _ state _; do
		[ "$state" = 0A ] && [ "${local##*:}" = 0016 ] && return 0
	done < /proc/net/tcp
	return 1
}

announce() {
	while ! sshd_listens; do $bb sleep 0.02; done
	say "sshd ready"
}

# What run_kselftest.sh starts for each program, into the page cache: read when it is first run,
# page by page, it takes three times as long. Only where that does not keep sshd from its CPU
read_ahead() {
	[ -d /sys/devices/system/cpu/cpu1 ] || return 0
	cd /usr/bin || return 0
	$bb cat tar gzip dirname cat grep sed wc cut sort uniq basename tr timeout stdbuf perl \
		../libexec/coreutils/libstdbuf.so ../lib/*/perl-base/strict.pm ../lib/*/perl-base/IO/*.pm \
		../lib/*/perl-base/auto/IO/*.so
} > /dev/null 2>&1

trap power_off TERM USR1 USR2
mount_first
read -r release < /proc/sys/kernel/osrelease
say "init of kernel $release"
[ ! -e "/lib/modules/$release/modules.dep" ] || load_drivers
seeded=
read_seed && seeded=yes
while :; do
	# -s: keys only. -W: what an upload may send before it is answered. env: this shell has the
	# signals of the keyboard ignored in the background, and what sshd starts would inherit that.
	# By its path, as this shell has an env of its own, which cannot do it
	/usr/bin/env --default-signal=INT,QUIT /usr/sbin/dropbear -F -E -s -P "" -p 22 -W 1048576 \
		-r "$seed/ssh_host_key" -D "$seed" < /dev/null > /dev/console 2>&1 &
	sshd_pid=$!
	if [ -n "$seeded" ]; then
		network_up
		read -r name < "$seed/hostname" && echo "$name" > /proc/sys/kernel/hostname
		network_rest
		mount_rest
		seeded=
	fi
	# one at a time: a sshd that cannot start does so every second
	kill -0 "$announcing" 2> /dev/null || { announce & announcing=$!; }
	read_ahead &
	# `wait` reaps every child, also those that PID 1 inherits
	while kill -0 "$sshd_pid" 2> /dev/null; do wait "$sshd_pid"; done
	say "sshd ended"
	$bb sleep 1
done
