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
deb_busybox="busybox-static bookworm 1.35.0 bin"

containerd_2_1=v2.1.9
containerd_2_3=v2.3.7
cri_tools=v1.36.0
# Of github.com/kubernetes-csi/drivers: the module proxy does not serve the
# driver's later home, github.com/kubernetes-csi/csi-driver-host-path.
csi_driver_host_path=v1.0.2
csi_test=v5.6.0
