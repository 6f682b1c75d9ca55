// SPDX-License-Identifier: Apache-2.0
//! Read-only view of a container runtime through the CRI.
