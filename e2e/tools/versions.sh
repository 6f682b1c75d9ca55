# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# Every pin of the test tools, in one place. Go modules are pinned a second time,
# with their whole tree, by go.mod and go.sum in go/<name>.

# Debian packages: name, suite, version wanted, directory of the programs, and
# libraries that a plain Debian 12 lacks. Debian keeps one version of a package
# in a suite: where it has moved on, what it has is taken and named.
deb_containerd_1_7="containerd trixie 1.7.24 usr/bin"
deb_runc="runc bookworm 1.1.5 usr/sbin"
deb_crun="crun bookworm 1.8.1 usr/bin libyajl2"
# With the C library that it needs.
deb_crun_1_21="crun trixie 1.21 usr/bin libc6 libcap2 libseccomp2 libsystemd0 libyajl2"
# bookworm's does not know the vDSO of kernels of today.
deb_criu="criu trixie 4.1.1 usr/sbin libc6 libcompel1 libgnutls30t64 libnet1 libnftables1 libnl-3-200 libprotobuf-c1 libuuid1 libbsd0 libmd0 libnettle8t64 libhogweed6t64 libp11-kit0 libidn2-0 libunistring5 libtasn1-6 libffi8 libgmp10 libedit2 libjansson4 libnftnl11 libmnl0 libxtables12 libtinfo6 libzstd1 zlib1g libbrotli1"
deb_runsc="runsc trixie 0.0~20240729.0 usr/bin"
deb_busybox="busybox-static bookworm 1.35.0 bin"
deb_user_mode_linux="user-mode-linux bookworm 6.1um4 usr/bin"
# Several packages in one directory: an NFS server and client, with the libraries
# that not every machine has.
deb_nfs_utils="nfs-kernel-server bookworm 2.6.2 usr/sbin nfs-common libwrap0 libtirpc3 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 libsqlite3-0"

containerd_2_1=v2.1.9
containerd_2_3=v2.3.7
cri_tools=v1.36.0
# Of github.com/kubernetes-csi/drivers: the module proxy does not serve the
# driver's later home, github.com/kubernetes-csi/csi-driver-host-path.
csi_driver_host_path=v1.0.2
# Of the same module, for the same reason.
csi_driver_nfs=v1.0.2
# Of k8s.io/kubernetes, started by go/csi-mock/main.go.
csi_mock=v1.36.0
kubelet=v1.36.0
# Debian's runc is too old to map the owners of mounts.
runc_1_5=v1.5.3
csi_test=v5.6.0
# Of the crate registry.
youki=0.7.0
