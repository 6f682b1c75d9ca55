// SPDX-License-Identifier: Apache-2.0
//! The node agent: publishes and releases the volumes of this node's scopes.
