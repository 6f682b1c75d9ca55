// SPDX-License-Identifier: Apache-2.0
//! NRI events translated into scope events of the node agent, and mounts into adjustments.
