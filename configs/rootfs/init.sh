#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# PID 1 of every machine that the harness boots from its own root file system (/sbin/tdisp-init).
# It mounts, reads the seed, brings up the network, keeps sshd alive and reaps children.
#
# The seed is a raw tar archive on the virtio-blk disk with the serial "seed":
#   ssh_host_ed25519_key, authorized_keys, hostname, network
# where `network` holds shell assignments: address=10.9.0.15/24 gateway=10.9.0.2
#
# Few processes are started: under TCG each one costs 10 to 20 ms.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
seed=/run/tdisp
sshd_pid=

say() {
	echo "tdisp-harness: $*" > /dev/console
}

# SIGTERM, SIGUSR2 (busybox poweroff): power off without a shutdown ceremony; the disk is thrown away
power_off() {
	say "power off"
	sync
	echo o > /proc/sysrq-trigger
	while :; do sleep 10; done
}

mount_first() {
	# an initrd hands over /proc, /sys, /dev and /run mounted
	[ -e /proc/self ] || mount -t proc proc /proc
	[ -e /sys/kernel ] || mount -t sysfs sysfs /sys
	[ -e /dev/kmsg ] || mount -t devtmpfs devtmpfs /dev
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -p /run/lock /run/sshd "$seed" /dev/pts /dev/shm /dev/hugepages
} 2> /dev/null

# One process for all of them; what the kernel lacks fails alone. sshd starts meanwhile.
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
	mount -a -T /run/fstab
} 2> /dev/null

# What udev would make; run_kselftest.sh writes the output of its tests to /dev/stdout
links() {
	[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
	[ -e /dev/stdin ] || ln -s /proc/self/fd/0 /dev/stdin
	[ -e /dev/stdout ] || ln -s /proc/self/fd/1 /dev/stdout
	[ -e /dev/stderr ] || ln -s /proc/self/fd/2 /dev/stderr
}

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
		tar -C "$seed" -xf "/dev/${disk%/serial}" && return 0
		say "seed disk unreadable"
		return 1
	done
	say "no seed disk"
	return 1
}

network_up() {
	address=
	gateway=
	# shellcheck source=/dev/null
	. "$seed/network"
	tries=0
	while [ $tries -lt 100 ]; do
		for device in /sys/class/net/*/device; do
			[ -e "$device" ] || continue
			nic=${device#/sys/class/net/}
			nic=${nic%/device}
			# nodad and a fixed address: nothing to wait for
			ip -batch - <<-EOF
				link set lo up
				address add $address dev $nic
				link set $nic up
				route add default via $gateway
			EOF
			return 0
		done
		tries=$((tries + 1))
		sleep 0.1
	done
	say "no network device"
	return 1
}

sshd_config() {
	echo "
		HostKey $seed/ssh_host_ed25519_key
		HostKeyAlgorithms ssh-ed25519
		KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org
		PubkeyAcceptedAlgorithms ssh-ed25519
		AuthorizedKeysFile $seed/authorized_keys
		AuthenticationMethods publickey
		PermitRootLogin prohibit-password
		StrictModes no
		UsePAM no
		UseDNS no
		PrintMotd no
		LogLevel ERROR
		MaxSessions 100
		MaxStartups 100
		AllowTcpForwarding yes
		PidFile none
		Subsystem sftp internal-sftp"
}

# sshd is ready when something listens on port 22 (0x16), state 0A
sshd_listens() {
	while read -r _ local _ state _; do
		[ "$state" = 0A ] && [ "${local##*:}" = 0016 ] && return 0
	done < /proc/net/tcp
	return 1
}

announce() {
	while ! sshd_listens; do sleep 0.05; done
	say "sshd ready"
}

trap power_off TERM USR1 USR2
mount_first
read -r release < /proc/sys/kernel/osrelease
say "init of kernel $release"
[ ! -e "/lib/modules/$release/modules.dep" ] || load_drivers
seeded=
read_seed && seeded=yes
# all that needs neither the seed nor the network, beside the start of sshd
{
	mount_rest
	links
	printf '#!/bin/sh\nkill -TERM 1\n' > /run/poweroff
	chmod 755 /run/poweroff
	[ -e /sbin/poweroff ] || ln -s /run/poweroff /sbin/poweroff
} &
rest=$!
sshd_config > "$seed/sshd_config"
while :; do
	/usr/sbin/sshd -D -e -f "$seed/sshd_config" < /dev/null > /dev/console 2>&1 &
	sshd_pid=$!
	if [ -n "$seeded" ]; then
		read -r name < "$seed/hostname" && echo "$name" > /proc/sys/kernel/hostname
		network_up
		seeded=
	fi
	wait "$rest"
	announce &
	# `wait` in dash reaps every child, also those that PID 1 inherits
	while kill -0 "$sshd_pid" 2> /dev/null; do wait "$sshd_pid"; done
	say "sshd ended"
	sleep 1
done
