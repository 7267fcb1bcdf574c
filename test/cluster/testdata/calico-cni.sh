#!/bin/bash
# A CNI plugin that leaves a pod as Calico's does, for tests of a take-over: a veth pair whose
# host end is named after the pod and has the MAC ee:ee:ee:ee:ee:ee, a /32 in the pod,
# a default route by way of 169.254.1.1, which the host answers for, and a route to the pod.
# Addresses come one after the other from the base in /run/calico-base.
set -e
exec 3>&1 1>>/run/calico-cni.log 2>&1
cat >/dev/null
of() { tr ';' '\n' <<<"$CNI_ARGS" | sed -n "s/^$1=//p"; }
host=cali$(printf %s "$(of K8S_POD_NAMESPACE).$(of K8S_POD_NAME)" | sha1sum | cut -c 1-11)
netns=$(basename "$CNI_NETNS")
case $CNI_COMMAND in
VERSION) echo '{"cniVersion": "0.3.1", "supportedVersions": ["0.3.1"]}' >&3 ;;
ADD)
	exec 9>/run/calico.lock
	flock 9
	last=$(($(cat /run/calico-last 2>/dev/null || echo 1) + 1))
	echo $last >/run/calico-last
	ip=$(cat /run/calico-base)$last
	ip link add "$host" type veth peer name eth0 netns "$netns"
	ip link set "$host" address ee:ee:ee:ee:ee:ee up
	nsenter --net="$CNI_NETNS" sh -c "ip link set eth0 up; ip addr add $ip/32 dev eth0
		ip route add 169.254.1.1 dev eth0 scope link; ip route add default via 169.254.1.1 dev eth0
		ip neigh add 169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee nud permanent"
	echo 1 >/proc/sys/net/ipv4/conf/"$host"/proxy_arp
	echo 0 >/proc/sys/net/ipv4/neigh/"$host"/proxy_delay
	echo 1 >/proc/sys/net/ipv4/conf/"$host"/forwarding
	ip route add "$ip" dev "$host" scope link
	echo "{\"cniVersion\": \"0.3.1\", \"interfaces\": [{\"name\": \"$host\"}], \"ips\": [{\"version\": \"4\", \"address\": \"$ip/32\"}], \"dns\": {}}" >&3
	;;
DEL) ip link del "$host" 2>/dev/null || true ;;
esac
