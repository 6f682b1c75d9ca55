// SPDX-License-Identifier: Apache-2.0
module k8s.io/csi-api

go 1.26
