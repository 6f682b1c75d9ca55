// SPDX-License-Identifier: Apache-2.0
//! What people write: templates, storage classes, annotations. Pure.
