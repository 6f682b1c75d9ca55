// SPDX-License-Identifier: Apache-2.0
//! Which mounts a container gets. Pure; the doors only translate it.
