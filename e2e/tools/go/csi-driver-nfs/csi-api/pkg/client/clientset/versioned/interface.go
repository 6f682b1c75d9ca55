// SPDX-License-Identifier: Apache-2.0

// Package versioned stands for a part of Kubernetes 1.12 that the module proxy
// does not serve. What the driver is built from names its one type, in a volume
// host that no CSI driver has, and calls nothing of it.
package versioned

// Interface is a client of an API that was given up.
type Interface interface{}
