// SPDX-License-Identifier: Apache-2.0
//! The embedded CSI driver: a directory per volume, shown by bind mounts.
