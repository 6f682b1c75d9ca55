// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools pins what e2e/tools/setup.sh builds.
package tools

import (
	_ "github.com/opencontainers/runc"
)
